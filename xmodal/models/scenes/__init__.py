"""Networks for semantic scene completion: DDRNet, AICNet, GRFNet and PALNet, and the authors' weights."""
