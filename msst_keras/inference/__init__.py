"""From a model's output to what people look at: streaming prediction, dense CRF refinement, overlays."""
