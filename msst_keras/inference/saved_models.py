"""What a SavedModel folder says, checked before anything in it runs.

A SavedModel is a program: its operations can read and write files and open connections, and loading it may run them.
`msst export` writes arithmetic alone, so a model with any other operation is refused before TensorFlow sees it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from msst_keras.files import read_json
from msst_keras.inference import temporal_filter
from msst_keras.motion.settings import MAX_LOGIT_SHIFT, MotionSettings

# What the signatures may be made of: arithmetic on tensors, its control flow, and pictures from and to bytes.
_ARITHMETIC = frozenset(
    """
    Abs Acos Asin Atan Atan2 Cosh Mod Sinh
    Add AddN AddV2 All Any ArgMax ArgMin Assert AvgPool BatchMatMulV2 BatchToSpaceND BiasAdd Bitcast BroadcastArgs
    BroadcastTo Cast Ceil ClipByValue Concat ConcatV2 Const Conv2D Cos Cross Cumsum DepthToSpace
    DepthwiseConv2dNative DynamicStitch Einsum Elu EnsureShape Equal Erf Exp ExpandDims Expm1 Fill Floor FloorDiv
    FloorMod FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual Identity IdentityN InvertPermutation
    IsFinite IsInf IsNan L2Loss LeakyRelu Less LessEqual LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr
    MatMul MatrixBandPart MatrixDiag MatrixDiagPartV3 MatrixDiagV3
    MatrixInverse MatrixSetDiagV3 MatrixSolve MatrixSolveLs Max MaxPool Maximum Mean Min
    Minimum MirrorPad Mul MulNoNan Neg NextAfter NoOp NotEqual OneHot OnesLike Pack Pad PadV2 Placeholder
    PlaceholderWithDefault Pow PreventGradient Prod Qr Range Rank RealDiv Reciprocal Relu Relu6 Reshape
    ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ReverseV2 Rint Roll Round Rsqrt ScaleAndTranslate
    ScatterNd SegmentMax SegmentMean SegmentMin SegmentSum Select SelectV2 Selu Shape ShapeN Sigmoid Sign Sin Size Slice
    Softmax Softplus SpaceToBatchND SpaceToDepth SparseToDense Split SplitV Sqrt Square SquaredDifference Squeeze
    StopGradient StridedSlice Sub Sum Tan Tanh TensorScatterAdd TensorScatterUpdate Tile TopKV2 Transpose TruncateDiv
    Unique UniqueV2 Unpack UnsortedSegmentMax UnsortedSegmentMean UnsortedSegmentMin UnsortedSegmentSum Where Xdivy
    ZerosLike
    Case If While StatelessCase StatelessIf StatelessWhile PartitionedCall StatefulPartitionedCall
    TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem TensorListLength TensorListPushBack
    TensorListReserve TensorListSetItem TensorListStack EmptyTensorList
    ReadVariableOp
    DecodeAndCropJpeg DecodeBmp DecodeImage DecodeJpeg DecodePng DecodeRaw EncodeJpeg EncodePng ExtractJpegShape
    DecodeCompressed AsString StringFormat StringJoin StringLength StringToNumber Substr StaticRegexFullMatch
    RegexFullMatch ParseTensor SerializeTensor
    """.split()
)
# What TensorFlow itself adds, outside the signatures, to save and to restore the variables.
_SAVING = frozenset(
    """
    AssignVariableOp DisableCopyOnRead MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename VarHandleOp
    VarIsInitializedOp
    """.split()
)
_SAVING_FUNCTIONS = ("__inference__traced_save_", "__inference__traced_restore_")
_MAX_FRAMES, _MAX_SIDE = 64, 16384


def find_version(path: Path) -> Path:
    """The folder saved_models/NAME/VERSION itself, or of saved_models/NAME that of the newest version.

    Raises:
      FileNotFoundError: no such folder, or no SavedModel in it.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such model folder; `msst export` writes saved_models/NAME/VERSION")
    if (path / "saved_model.pb").is_file():
        return path
    versions = [child for child in path.iterdir() if child.name.isdecimal() and (child / "saved_model.pb").is_file()]
    if not versions:
        raise FileNotFoundError(f"{path}: no SavedModel here (no saved_model.pb, and no folder VERSION with one)")
    return max(versions, key=lambda child: int(child.name))


def check_model(path: Path, length: int, motion: MotionSettings | None) -> None:
    """Refuses a SavedModel that holds an operation which is no arithmetic, or whose signatures are not as its settings.

    Args:
      path: the folder of saved_model.pb.
      length: T, of the settings.
      motion: of the settings.

    Raises:
      ValueError: there is such an operation (names it); the settings contradict the signatures, or there are none; or
        the file is none.
    """
    for name in ("saved_model.cpb", "saved_model.pbtxt"):  # TensorFlow would read these in place of what is checked
        if (path / name).exists():
            raise ValueError(f"{path / name}: `msst export` writes no such file; a model with it is not loaded")
    graphs = _read(path).meta_graphs
    _check_operations(path, graphs)
    _check_signatures(path, graphs, length, motion)


def _check_operations(path: Path, graphs: Iterable[meta_graph_pb2.MetaGraphDef]) -> None:
    for graph in graphs:
        functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
        reached = _find_reached(functions, graph.object_graph_def.concrete_functions)
        for name, nodes in functions.items():
            is_saving = name.startswith(_SAVING_FUNCTIONS) and name not in reached
            _check(path, nodes, _ARITHMETIC | _SAVING if is_saving else _ARITHMETIC)
        _check(path, graph.graph_def.node, _ARITHMETIC | _SAVING)


def _read(path: Path) -> saved_model_pb2.SavedModel:
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((path / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise ValueError(f"{path}: this SavedModel cannot be loaded ({error}); export it again") from error
    return model


def _find_reached(functions: dict, names: Iterable[str]) -> set[str]:
    """The functions that these call, directly or through others, and these."""
    reached, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name in reached or name not in functions:
            continue
        reached.add(name)
        for node in functions[name]:
            for value in node.attr.values():
                waiting += [value.func.name, *(called.name for called in value.list.func)]
    return reached


def _check(path: Path, nodes: Iterable, allowed: frozenset[str]) -> None:
    for node in nodes:
        if node.op not in allowed:
            raise ValueError(
                f"{path}: this SavedModel holds the operation {node.op}, which no model of `msst export` does; a model "
                "is a program that could read and write your files, so it is not loaded"
            )


def read_settings(path: Path) -> tuple[dict, MotionSettings | None]:
    """Reads and checks assets/msst.json.

    Returns:
      the settings, and the motion's among them.

    Raises:
      ValueError: a setting is missing, of the wrong type, or out of all range; names the file.
    """
    path = path / "assets" / "msst.json"
    settings = read_json(path, "export the model again")

    def require(is_right: object, what: str, key: str) -> None:
        """Raises ValueError, which names the file, unless the setting is right."""
        if not is_right:
            found = str(settings.get(key, "nothing"))[:80]
            raise ValueError(f"{path}: damaged (expected {what} in {key}, found {found}); export the model again")

    length, size = settings.get("num_frames"), settings.get("image_size")
    require(type(length) is int and 1 <= length <= _MAX_FRAMES, f"a whole number of 1 to {_MAX_FRAMES}", "num_frames")
    require(_is_size(size), f"height and width, up to {_MAX_SIDE}", "image_size")
    shift = settings.get("logit_shift", 0.0)
    require(
        type(shift) in (int, float) and abs(shift) <= MAX_LOGIT_SHIFT,
        f"a number of {-MAX_LOGIT_SHIFT:g} to {MAX_LOGIT_SHIFT:g}",
        "logit_shift",
    )
    require("motion" in settings and isinstance(settings["motion"], dict | None), "motion settings, or null", "motion")
    try:
        temporal_filter.read_share(settings)
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); export the model again") from error
    if settings["motion"] is None:
        return settings, None
    try:
        motion = MotionSettings.from_dict(settings["motion"])
        is_right = _is_size(list(motion.flow_settings.motion_size)) and (motion.superpixel_settings or True)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: damaged ({error}); export the model again") from error
    require(is_right, f"a motion_size up to {_MAX_SIDE}", "motion")
    return settings, motion


def _is_size(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(x) is int and 1 <= x <= _MAX_SIDE for x in value)


def _check_signatures(
    path: Path, graphs: Iterable[meta_graph_pb2.MetaGraphDef], length: int, motion: MotionSettings | None
) -> None:
    """Compares the settings with the shapes of the signatures' inputs, which cannot be changed in a text file."""
    signatures = {name: signature for graph in graphs for name, signature in graph.signature_def.items()}
    if not {"encode", "fuse"} <= signatures.keys():
        raise ValueError(f"{path}: this SavedModel has no signatures encode and fuse; export it again")
    expected: dict[str, tuple[int | None, ...]] = {"frame": (None, None, None, 3)}
    if motion is not None:
        size = tuple(motion.flow_settings.motion_size)
        expected["flow"] = (None, *size, 2)
        if (superpixels := motion.superpixel_settings) is not None:
            expected["superpixels"] = (None, *size, superpixels.num_levels)
    found = {name: _shape(tensor) for name, tensor in signatures["encode"].inputs.items()}
    windows = {shape[1] for shape in map(_shape, signatures["fuse"].inputs.values()) if len(shape) == 5}
    if found != expected or windows - {length}:
        raise ValueError(
            f"{path}: the settings in assets/msst.json ({expected}, num_frames {length}) are not those of the model "
            f"({found}, num_frames {', '.join(sorted(map(str, windows))) or 'none'}); export it again"
        )


def _shape(tensor: meta_graph_pb2.TensorInfo) -> tuple[int | None, ...]:
    return tuple(None if axis.size == -1 else axis.size for axis in tensor.tensor_shape.dim)
