"""From a model's output to what people look at: streaming prediction, dense CRF refinement, overlays."""

from pathlib import Path

# The model that is installed with the package; its card is beside it. Here, where no TensorFlow is, for those who only
# want to know whether it is there.
SHIPPED_MODEL = Path(__file__).parents[1] / "shipped" / "st_light"
