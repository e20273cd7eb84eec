"""Multi-Scale Spatiotemporal Conv-LSTM Network for Video Saliency Detection (ICMR 2018) in TensorFlow and Keras."""

__version__ = "0.1.0"
