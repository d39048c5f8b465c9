"""The seeds of a comparison in several processes: of this machine, or of a cluster that runs already."""
