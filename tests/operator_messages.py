"""Messages of TensorFlow Serving's configuration files that its package of stubs lacks.

Copies of tensorflow_serving/servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto, for
their text form alone: numbers of fields do not matter in it.
"""

from __future__ import annotations

from msst_keras.serving.messages import build_messages

MESSAGES = build_messages(
    {
        "Number": [("value", 1, "int64")],
        "Text": [("value", 1, "string")],
        "Switch": [("value", 1, "bool")],
        "BatchingParameters": [
            ("max_batch_size", 1, "Number"), ("batch_timeout_micros", 2, "Number"),
            ("max_enqueued_batches", 3, "Number"), ("num_batch_threads", 4, "Number"),
            ("thread_pool_name", 5, "Text"), ("allowed_batch_sizes", 6, "*int64"),
            ("pad_variable_length_inputs", 7, "bool"), ("enable_large_batch_splitting", 8, "Switch"),
            ("max_execution_batch_size", 9, "Number"),
        ],
        "PrometheusConfig": [("enable", 1, "bool"), ("path", 2, "string")],
        "MonitoringConfig": [("prometheus_config", 1, "PrometheusConfig")],
    }
)  # fmt: skip
