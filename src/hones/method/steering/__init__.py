"""Step 4 of the paper: learn sparse neuron scalings, backbone frozen."""
