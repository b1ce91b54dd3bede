"""The command ``noisefilter train``, and the page of a training."""
