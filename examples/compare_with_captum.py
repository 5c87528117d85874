"""Compare LayerContribution with Captum's LayerGradientXActivation, and compute a canvas, which Captum does not have.

python examples/compare_with_captum.py
"""

import torch
from captum.attr import LayerGradientXActivation, NoiseTunnel

from xinc_captum import LayerContribution, NeuronCanvas
from xinc_captum.inr import FourierMLP, coordinates

model, x = FourierMLP(hidden=32, seed=0), coordinates((16, 24))

ours = LayerContribution(model, "activation2").attribute(x, target=0)
theirs = LayerGradientXActivation(model, model.activation2).attribute(x, target=0)
print("same as Captum:", torch.allclose(ours, theirs, atol=1e-6))

smoothed = NoiseTunnel(LayerContribution(model, "activation2")).attribute(x, nt_samples=4, stdevs=0.01, target=0)
print("inside Captum's NoiseTunnel:", tuple(smoothed.shape))

canvas = NeuronCanvas(model, "activation2").attribute(x)
print("every neuron, every pixel, every colour:", tuple(canvas.shape))

shares, delta = NeuronCanvas(model, "activation1", rule="secant").attribute(x, return_convergence_delta=True)
print(f"secant shares of {shares.shape[1] - 1} neurons and the bias term miss the image by {delta.abs().max():.1e}")
