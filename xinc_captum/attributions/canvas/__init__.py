"""XINC: the contribution of each neuron to each output pixel."""
