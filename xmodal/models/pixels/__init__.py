"""Networks that give a class for every pixel: SalsaNext, a camera network, and PMF, which joins them."""
