"""Multi-Scale Spatiotemporal Conv-LSTM Network for Video Saliency Detection (ICMR 2018) in TensorFlow and Keras."""

import os

__version__ = "0.1.0"

# OpenCV's threads wait for each other in a busy loop before they sleep, and take the processor from the network
# meanwhile: of the chain's CPU time that was 6 to 10 % (two cores, `benchmarks/stream.py`). OpenCV reads this when it
# is imported.
os.environ.setdefault("OPENCV_THREAD_POOL_ACTIVE_WAIT_MAIN", "0")
os.environ.setdefault("OPENCV_THREAD_POOL_ACTIVE_WAIT_WORKER", "0")
