"""The TensorFlow operations that a frozen graph may have.

A graph is a program: TensorFlow's 1,900 operations read and write files, use the network and call Python, some of
them while a graph is only loaded. Those below compute values from values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from beam_retrain.transforms.core.errors import InputError

if TYPE_CHECKING:
  import tensorflow as tf

GROUPS: Mapping[str, str] = {
  "inputs and constants": """
    Const EmptyTensorList Placeholder PlaceholderV2 PlaceholderWithDefault""",
  "values passed on, for names, gradients and order": """
    ControlTrigger EnsureShape Identity IdentityN NoOp PreventGradient Snapshot StopGradient""",
  "arithmetic": """
    Abs Acos Acosh Add AddN AddV2 Asin Asinh Atan Atan2 Atanh BatchMatMul BatchMatMulV2 BatchMatMulV3 Bitcast Cast Ceil
    ClipByValue Cos Cosh Cross Cumprod Cumsum Div DivNoNan Einsum Erf Erfc Erfinv Exp Expm1 Floor FloorDiv FloorMod Inv
    L2Loss Log Log1p MatMul Maximum Minimum Mod Mul MulNoNan Neg Pow RealDiv Reciprocal Rint Round Rsqrt Sigmoid Sign
    Sin Sinh SparseMatMul Sqrt Square SquaredDifference Sub Tan Tanh TruncateDiv TruncateMod Xdivy Xlogy""",
  "comparisons and choice": """
    All Any ApproximateEqual Bucketize Equal Greater GreaterEqual InTopK InTopKV2 IsFinite IsInf IsNan Less LessEqual
    LogicalAnd LogicalNot LogicalOr NotEqual Select SelectV2 Where""",
  "reductions": "ArgMax ArgMin EuclideanNorm Max Mean Min NthElement Prod Sum TopK TopKV2",
  "shapes and parts of tensors": """
    BatchToSpace BatchToSpaceND BroadcastArgs BroadcastTo Concat ConcatOffset ConcatV2 ConjugateTranspose DepthToSpace
    DynamicPartition DynamicStitch ExpandDims Fill Gather GatherNd GatherV2 InvertPermutation LinSpace MatrixBandPart
    MatrixDiag MatrixDiagPart MirrorPad OneHot OnesLike Pack Pad PadV2 Range Rank Reshape Reverse ReverseSequence
    ReverseV2 Roll ScatterNd Shape ShapeN Size Slice SpaceToBatch SpaceToBatchND SpaceToDepth Split SplitV Squeeze
    StridedSlice TensorScatterAdd TensorScatterUpdate Tile Transpose Unique Unpack ZerosLike""",
  "convolution": """
    BiasAdd BiasAddV1 Conv Conv2D Conv2DBackpropInput Conv3D DepthwiseConv2dNative DepthwiseConv2dNativeBackpropInput
    Dilation2D FusedPadConv2D FusedResizeAndPadConv2D""",
  "activations": "Elu LeakyRelu LogSoftmax Relu Relu6 Selu Softmax Softplus Softsign",
  "pooling": "AvgPool AvgPool3D FractionalAvgPool FractionalMaxPool MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax",
  "normalisation": "BatchNormWithGlobalNormalization FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 LRN",
  "checks of values": "Assert CheckNumerics",
  "resizing and colours": """
    AdjustContrast AdjustContrastv2 AdjustHue AdjustSaturation CropAndResize ExtractGlimpse ExtractImagePatches HSVToRGB
    ImageProjectiveTransformV2 ImageProjectiveTransformV3 RGBToHSV ResizeArea ResizeBicubic ResizeBilinear
    ResizeNearestNeighbor ScaleAndTranslate""",
  "decoding of images, from bytes alone": """
    BitwiseAnd BitwiseOr DecodeAndCropJpeg DecodeBase64 DecodeBmp DecodeGif DecodeImage DecodeJpeg DecodePng DecodeRaw
    DecodeWebP ExtractJpegShape StringJoin StringLength Substr""",
  "conditions, loops and functions; what a function computes is checked too": """
    Case Enter Exit If LoopCond Merge NextIteration PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf
    StatelessWhile Switch While""",
  "lists of a loop's values": """
    TensorArrayCloseV3 TensorArrayConcatV3 TensorArrayGatherV3 TensorArrayReadV3 TensorArrayScatterV3 TensorArraySizeV3
    TensorArraySplitV3 TensorArrayV3 TensorArrayWriteV3 TensorListConcatV2 TensorListElementShape TensorListFromTensor
    TensorListGather TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack TensorListReserve
    TensorListResize TensorListScatterV2 TensorListSetItem TensorListSplit TensorListStack""",
  "random numbers, of dropout that was left in": """
    Multinomial RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt StatelessRandomGetAlg
    StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg StatelessRandomNormal StatelessRandomNormalV2
    StatelessRandomUniform StatelessRandomUniformV2 TruncatedNormal""",
  "quantised variants": """
    Dequantize FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel QuantizeAndDequantize
    QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 QuantizeDownAndShrinkRange QuantizeV2
    QuantizedAdd QuantizedAvgPool QuantizedBatchNormWithGlobalNormalization QuantizedBiasAdd QuantizedConcat
    QuantizedConv2D QuantizedConv2DAndRelu QuantizedConv2DAndReluAndRequantize
    QuantizedConv2DAndRequantize QuantizedConv2DPerChannel QuantizedConv2DWithBias QuantizedConv2DWithBiasAndRelu
    QuantizedConv2DWithBiasAndReluAndRequantize QuantizedConv2DWithBiasAndRequantize
    QuantizedConv2DWithBiasSumAndRelu QuantizedConv2DWithBiasSumAndReluAndRequantize
    QuantizedConv2DWithBiasSignedSumAndReluAndRequantize QuantizedDepthwiseConv2D QuantizedDepthwiseConv2DWithBias
    QuantizedDepthwiseConv2DWithBiasAndRelu QuantizedDepthwiseConv2DWithBiasAndReluAndRequantize
    QuantizedInstanceNorm QuantizedMatMul QuantizedMatMulWithBias QuantizedMatMulWithBiasAndRelu
    QuantizedMatMulWithBiasAndReluAndRequantize QuantizedMaxPool QuantizedMul QuantizedRelu QuantizedRelu6
    QuantizedReluX QuantizedReshape QuantizedResizeBilinear RequantizationRange RequantizationRangePerChannel
    Requantize RequantizePerChannel""",
}
"""Why they are needed -> their names."""

ALLOWED = frozenset(name for names in GROUPS.values() for name in names.split())
# What gives a training its batches -> the attribute with their types.
_BATCHES = {
  "IteratorGetNext": "output_types",
  "QueueDequeueManyV2": "component_types",
  "QueueDequeueUpToV2": "component_types",
}
_VARIABLES = {"Variable", "VariableV2", "VarHandleOp", "TemporaryVariable", "AutoReloadVariable"}


def find_foreign(nodes: Iterable[tf.compat.v1.NodeDef], graph: tf.compat.v1.GraphDef) -> set[str]:
  """Returns the nodes' operations that are not allowed, also in functions."""
  bodies = {function.signature.name: function.node_def for function in graph.library.function}
  to_visit, called, foreign = list(nodes), set[str](), set[str]()
  while to_visit:
    node = to_visit.pop()
    if node.op not in ALLOWED and node.op not in bodies:
      foreign.add(node.op)
    for name in {node.op, *_functions_in(node.attr)} & bodies.keys() - called:
      called.add(name)
      to_visit += bodies[name]
  return foreign


def _functions_in(attributes: Mapping[str, tf.compat.v1.AttrValue]) -> Iterator[str]:
  for value in attributes.values():
    for function in (value.func, *value.list.func):
      if function.name:
        yield function.name
        yield from _functions_in(function.attr)


def allowed_part(graph: tf.compat.v1.GraphDef, fed: str) -> tuple[tf.compat.v1.GraphDef, Mapping[str, set[str]]]:
  """Splits a graph into what allowed operations alone compute, and the rest.

  Returns the part, and for each other node the operations that it depends on and that are not allowed. The node `fed`
  is not computed: if it reads a data set or a queue, it becomes a placeholder.
  """
  graph, to_visit = _fed(graph, fed)
  consumers: dict[str, list[str]] = {}
  for node in graph.node:
    for source in node.input:
      consumers.setdefault(source.removeprefix("^").split(":")[0], []).append(node.name)
  others: dict[str, set[str]] = {}
  to_visit += [(node.name, name) for node in graph.node for name in find_foreign([node], graph)]
  while to_visit:
    node_name, name = to_visit.pop()
    if name not in others.setdefault(node_name, set()):
      others[node_name].add(name)
      to_visit += [(consumer, name) for consumer in consumers.get(node_name, ())]
  if not others:
    return graph, others
  part = type(graph)(versions=graph.versions, library=graph.library)
  part.node.extend(node for node in graph.node if node.name not in others)
  return part, others


def _fed(graph: tf.compat.v1.GraphDef, name: str) -> tuple[tf.compat.v1.GraphDef, list[tuple[str, str]]]:
  """Returns the graph, and (node, operation) of what takes more than images."""
  operations = {node.op for node in graph.node if node.name == name} & _BATCHES.keys()
  if not operations:
    return graph, []
  (operation,) = operations
  graph = type(graph).FromString(graph.SerializeToString())
  (node,) = [node for node in graph.node if node.name == name]
  types, shapes = node.attr[_BATCHES[operation]].list.type, node.attr["output_shapes"].list.shape
  placeholder = type(node)(name=name, op="Placeholder")
  placeholder.attr["dtype"].type = types[0]
  if shapes:
    placeholder.attr["shape"].shape.CopyFrom(shapes[0])
  node.CopyFrom(placeholder)
  more = [(node.name, operation) for node in graph.node if any(source.startswith(f"{name}:") for source in node.input)]
  return graph, more


def refuse_foreign(foreign: Iterable[str], path: str) -> None:
  """Raises InputError if there are operations that are not allowed."""
  names = sorted(foreign)
  if _VARIABLES.intersection(names):
    raise InputError(f"{path} has variables, whose values are not in the file: freeze the graph first.")
  if names:
    raise InputError(
      f"{path} has operations that no image classifier needs ({', '.join(names)}), and a graph can access files, the"
      " network and Python: freeze it again from a placeholder for images to the scores."
    )
