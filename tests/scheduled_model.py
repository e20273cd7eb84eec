"""A SavedModel behind TensorFlow's own batch scheduler, which is also TensorFlow Serving's."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from cpp_model import ModelError
from google.protobuf import text_format
from operator_messages import MESSAGES


class ScheduledModel:
    """A loaded SavedModel that answers as `CppModel` does, one queue a signature, as the server has.

    Attributes:
      path: of its folder.
      signatures: name -> {"inputs": names, "outputs": names}.
    """

    def __init__(self, path, batching):
        """Loads it.

        Args:
          path: of the version's folder.
          batching: a `batching_parameters_file` of the server.
        """
        parameters = text_format.Parse(Path(batching).read_text(), MESSAGES["BatchingParameters"]())
        self.path = path
        self._model = tf.saved_model.load(str(path))
        self.signatures, self._run = {}, {}
        for name, function in self._model.signatures.items():
            inputs = function.structured_input_signature[1]
            self.signatures[name] = {kind: dict.fromkeys(names) for kind, names in
                                     {"inputs": inputs, "outputs": function.structured_outputs}.items()}  # fmt: skip
            self._run[name] = _schedule(function, inputs, parameters)

    def run(self, signature, inputs):
        """The outputs of a signature, from any thread.

        Raises:
          ModelError: TensorFlow answers with an error.
        """
        given = {
            name: tf.constant(value.tolist() if value.dtype == object else value) for name, value in inputs.items()
        }
        try:
            found = self._run[signature](given)
        except tf.errors.OpError as error:
            raise ModelError(error.error_code, error.message) from error
        return {name: value.numpy() for name, value in found.items()}


def _schedule(function, inputs, parameters):
    """The function behind a queue: rows in turn, so many at once."""
    splits = parameters.enable_large_batch_splitting.value
    sizes = [parameters.max_execution_batch_size.value] if splits else list(parameters.allowed_batch_sizes)
    outputs = sorted(function.structured_outputs)

    def in_order(*tensors):
        found = function(**dict(zip(inputs, tensors, strict=True)))
        return [found[name] for name in outputs]

    batched = tf.nondifferentiable_batch_function(
        parameters.num_batch_threads.value,
        parameters.max_batch_size.value,
        parameters.batch_timeout_micros.value,
        sizes or None,
        parameters.max_enqueued_batches.value or 10,
        autograph=False,
        enable_large_batch_splitting=splits,
    )(in_order)

    # One node of one graph, because a queue belongs to its node.
    @tf.function(input_signature=[dict(inputs)], autograph=False)
    def answer(given):
        return dict(zip(outputs, batched(*(given[name] for name in inputs)), strict=True))

    return answer
