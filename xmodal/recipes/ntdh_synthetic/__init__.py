"""NTDH on synthetic data: Gaussian pairs, scikit-learn's classes, MNIST and MNIST-M."""
