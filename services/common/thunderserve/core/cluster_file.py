"""A cluster from a mapping, as a YAML or JSON file holds it.

::

    profile: tensor_dense              # or paper_table1
    network: {gbit_per_s: 40, latency_ms: 0.1}
    gpu_types:                         # only what the catalogue lacks, or describes otherwise
      - {name: MyGpu, tflops: 100, memory_gb_per_s: 900, memory_gb: 24, usd_per_hour: 0.4}
    usd_per_hour: {A40: 0.35}          # prices that differ from the catalogue's; 0 for one's own
    nodes:
      - {id: n0, gpus: [{type: A40, count: 4}]}
      - {id: n1, gpus: [{type: A5000, count: 2}, {type: 3090Ti, count: 2}], gbit_per_s: 10}
    links:                             # measured pairs; others take the slower port
      - {from: n0, to: n1, gbit_per_s: 5, latency_ms: 2}

`local_gb_per_s` of a node is between two of its GPUs; by default what its slowest GPU type has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thunderserve.core.catalogue import Catalogue, catalogue
from thunderserve.core.hardware import GIGABIT_PER_S, Cluster, GpuType, Link, Node
from thunderserve.core.mapping import Reader
from thunderserve.core.plan import Gpu

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["cluster_from_mapping", "links_from_mapping"]

_GB = 1e9
_MS = 1e-3
_DEFAULT_PROFILE = "tensor_dense"
_DEFAULT_GBIT_PER_S = 10.0
_DEFAULT_LATENCY_MS = 0.1
_LOCAL_LATENCY_S = 1e-5


def cluster_from_mapping(mapping: Mapping[str, Any]) -> Cluster:
    """The cluster that a mapping describes.

    Raises:
        InvalidArgumentError: Names the place in the mapping and what is wrong there.
    """
    top = Reader(mapping)
    top.only("profile", "network", "gpu_types", "usd_per_hour", "nodes", "links")
    known = catalogue(top.text("profile", _DEFAULT_PROFILE))
    known = known.with_types([_read_type(each) for each in top.items("gpu_types")])
    known = _with_prices(known, top.inner("usd_per_hour"))
    port = _read_link(top.inner("network") or Reader({}))
    nodes = tuple(_read_node(each, known, port) for each in top.items("nodes"))
    used = dict.fromkeys(gpu.type for node in nodes for gpu in node.gpus)
    links = tuple(_read_pair(each) for each in top.items("links"))
    types = tuple(known.get(name) for name in used)
    return top.build(Cluster, nodes, types, links)


def links_from_mapping(mapping: Mapping[str, Any]) -> tuple[tuple[str, str, Link], ...]:
    """Links alone, as a file of what was measured holds them: nothing but `links`, as above.

    Raises:
        InvalidArgumentError: Names the place in the mapping and what is wrong there.
    """
    top = Reader(mapping)
    top.only("links")
    if "links" not in mapping:
        raise top.error("is missing", "links")
    links: dict[frozenset[str], tuple[str, str, Link]] = {}
    for each in top.items("links"):
        each.number("gbit_per_s")  # what was not measured has no place here
        first, second, link = _read_pair(each)
        if links.setdefault(frozenset((first, second)), (first, second, link))[2] is not link:
            raise each.error(f"the link {first} - {second} is there twice")
    return tuple(links.values())


def _read_pair(reader: Reader) -> tuple[str, str, Link]:
    return reader.text("from"), reader.text("to"), _read_link(reader, "from", "to")


def _with_prices(known: Catalogue, prices: Reader | None) -> Catalogue:
    if prices is None:
        return known
    return prices.build(known.with_prices, {name: prices.number(name) for name in prices.value})


def _read_type(reader: Reader) -> GpuType:
    reader.only(
        *("name", "tflops", "memory_gb_per_s", "memory_gb", "usd_per_hour", "local_gb_per_s")
    )
    return reader.build(
        GpuType,
        name=reader.text("name"),
        tflops=reader.number("tflops"),
        memory_bytes_per_s=reader.number("memory_gb_per_s") * _GB,
        memory_bytes=reader.number("memory_gb") * _GB,
        usd_per_hour=reader.number("usd_per_hour"),
        local_bytes_per_s=reader.number("local_gb_per_s", 32.0) * _GB,
    )


def _read_link(reader: Reader, *beside: str, default: Link | None = None) -> Link:
    reader.only("gbit_per_s", "latency_ms", *beside)
    usual = default or Link(_DEFAULT_GBIT_PER_S * GIGABIT_PER_S, _DEFAULT_LATENCY_MS * _MS)
    return reader.build(
        Link,
        reader.number("gbit_per_s", usual.bytes_per_s / GIGABIT_PER_S) * GIGABIT_PER_S,
        reader.number("latency_ms", usual.latency_s / _MS) * _MS,
    )


def _read_node(reader: Reader, known: Catalogue, port: Link) -> Node:
    node_id = reader.text("id")
    kinds: list[str] = []
    for held in reader.items("gpus"):
        held.only("type", "count")
        kind = held.build(known.get, held.text("type"))
        if kind.name in known.unpriced:
            raise held.error(
                f"nobody has told the price of {kind.name}; give it under usd_per_hour at the top"
            )
        kinds += [kind.name] * held.integer("count", 1)
    gpus = tuple(Gpu(f"{node_id}/{index}", kind) for index, kind in enumerate(kinds))
    slowest = min((known.get(kind).local_bytes_per_s for kind in kinds), default=1.0)
    local = reader.number("local_gb_per_s", slowest / _GB) * _GB
    network = _read_link(reader, "id", "gpus", "local_gb_per_s", default=port)
    return reader.build(Node, node_id, gpus, reader.build(Link, local, _LOCAL_LATENCY_S), network)
