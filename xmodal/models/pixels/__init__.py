"""Networks that predict a class for every pixel: SalsaNext, a camera network, and PMF, which fuses them."""
