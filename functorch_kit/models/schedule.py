"""Which nodes of which graphs can be computed together: dynamic batching, decided on the host.

Looks, Herreshoff, Hutchins and Norvig, 2017 (TensorFlow Fold): nodes of the same operation at the
same depth of different graphs are one batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from functorch_kit.nn.errors import LayerError


class Node(NamedTuple):
    """One operation of a graph.

    Attributes:
        op: number of the operation.
        inputs: places in the graph of the nodes whose values it takes, all before its own.
        argument: a number that it takes besides, such as a token.
    """

    op: int
    inputs: tuple[int, ...] = ()
    argument: int = 0


def schedule(
    graphs: Sequence[Sequence[Node]], *, width: int = 128, most_inputs: int | None = None
) -> dict[str, np.ndarray]:
    """Put the nodes of many graphs in chunks: one operation each, after what they take.

    The number of chunks is rounded up to a power of two, and the chunks that this adds are skipped,
    so that a program for one set of graphs serves every other of about that size: the number of
    times that it is compiled is bounded by the logarithm of the largest.

    Args:
        graphs: each in an order in which inputs come first; the last node is the result.
        width: nodes in a chunk.
        most_inputs: that an operation takes; None for the most that these graphs have, which other
            graphs may not share.

    Returns:
        Integer arrays: ``op`` (chunks,), -1 for a chunk to skip; ``inputs`` (chunks, width, most
        inputs), as rows of the table of values, chunk after chunk; ``argument`` and ``example``
        (chunks, width); ``root`` (graphs,), as rows.

    Raises:
        LayerError: no graph, a graph without nodes, or a node before its inputs.

    Example:
        >>> leaf, node = Node(0, argument=7), Node(1, (0, 1))
        >>> made = schedule([[leaf, leaf, node], [leaf, leaf, node]], width=4)
        >>> made["op"].tolist(), made["inputs"][1, :2].tolist(), made["root"].tolist()
        ([0, 1], [[0, 1], [2, 3]], [4, 5])
    """
    if width < 1:
        raise LayerError(f"schedule: a width of {width} holds no node: give 1 or more")
    if not graphs or not all(graphs):
        raise LayerError("schedule: there is no graph, or one without nodes")
    together: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for example, graph in enumerate(graphs):
        for place, (depth, node) in enumerate(zip(_depths(graph, example), graph, strict=True)):
            together[depth, node.op].append((example, place))
    chunks = [
        (op, nodes[start : start + width])
        for (_, op), nodes in sorted(together.items())
        for start in range(0, len(nodes), width)
    ]
    most = max(max(len(node.inputs) for node in graph) for graph in graphs)
    if most_inputs is not None and most > most_inputs:
        raise LayerError(f"schedule: a node has {most} inputs, more than most_inputs={most_inputs}")
    count = 1 << (len(chunks) - 1).bit_length()
    made = {
        "op": np.full(count, -1, np.int32),
        "inputs": np.zeros((count, width, most_inputs or max(most, 1)), np.int32),
        "argument": np.zeros((count, width), np.int32),
        "example": np.zeros((count, width), np.int32),
    }
    rows: dict[tuple[int, int], int] = {}
    for chunk, (op, nodes) in enumerate(chunks):
        made["op"][chunk] = op
        for column, (example, place) in enumerate(nodes):
            node = graphs[example][place]
            rows[example, place] = chunk * width + column
            for which, source in enumerate(node.inputs):
                made["inputs"][chunk, column, which] = rows[example, source]
            made["argument"][chunk, column] = node.argument
            made["example"][chunk, column] = example
    root = [rows[example, len(graph) - 1] for example, graph in enumerate(graphs)]
    return {**made, "root": np.array(root, np.int32)}


def _depths(graph: Sequence[Node], example: int) -> list[int]:
    depths: list[int] = []
    for place, node in enumerate(graph):
        if any(not 0 <= source < place for source in node.inputs):
            raise LayerError(
                f"schedule: node {place} of graph {example} takes {node.inputs}: give nodes in an "
                "order in which inputs come first"
            )
        depths.append(1 + max((depths[source] for source in node.inputs), default=-1))
    return depths
