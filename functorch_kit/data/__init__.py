"""Data: ``batch = pipeline(step)``, a pure function of (seed, step)."""

from functorch_kit.data.arrays import arrays, npz
from functorch_kit.data.augment import (
    as_floats,
    chain,
    cutout,
    each_image,
    mixtures,
    random_crop,
    random_flip,
    scaled,
)
from functorch_kit.data.cifar import cifar_folder, read_cifar
from functorch_kit.data.delivery import Feed, each_on_device, sharded
from functorch_kit.data.diagnosis import Diagnosis, diagnosed
from functorch_kit.data.digits import digits
from functorch_kit.data.fetching import fetch
from functorch_kit.data.foreign import array_record, hugging_face, items
from functorch_kit.data.formulas import sinusoids, teacher_student
from functorch_kit.data.idx import idx_folder, read_idx
from functorch_kit.data.images import decode_image, image_folder
from functorch_kit.data.inputs import Inputs
from functorch_kit.data.mapped import MappedSource, mapped
from functorch_kit.data.mixing import Among, Curriculum, Joined, Mixture, Shard, shard
from functorch_kit.data.order import Order, Sequential, Shuffled, permuted
from functorch_kit.data.packing import Packed, PackingIndex, documents, pack
from functorch_kit.data.parts import first_batch_fits, from_source, mixed
from functorch_kit.data.pipeline import Data, DataError, Pipeline, evaluation, training
from functorch_kit.data.processes import InProcesses
from functorch_kit.data.randaugment import rand_augment
from functorch_kit.data.readers import cifar, idx, image_transforms, images, npy, table
from functorch_kit.data.source import ArraySource, DecodedSource, RecordError, Source, Subset
from functorch_kit.data.spirals import spirals
from functorch_kit.data.split import stratified_split
from functorch_kit.data.streamed import Streamed
from functorch_kit.data.synthetic import gaussian, synthetic_images
from functorch_kit.data.tables import read_table
from functorch_kit.data.text import Characters, text
from functorch_kit.data.tokenizer import Tokenizer
from functorch_kit.data.tokens import TokenNumbers, token_bins
from functorch_kit.data.transformed import Transform, Transformed
from functorch_kit.data.vocabulary import Vocabulary, vocabulary_from
from functorch_kit.data.windows import Windows

__all__ = [
    "Among",
    "ArraySource",
    "Characters",
    "Curriculum",
    "Data",
    "DataError",
    "DecodedSource",
    "Diagnosis",
    "Feed",
    "InProcesses",
    "Inputs",
    "Joined",
    "MappedSource",
    "Mixture",
    "Order",
    "Packed",
    "PackingIndex",
    "Pipeline",
    "RecordError",
    "Sequential",
    "Shard",
    "Shuffled",
    "Source",
    "Streamed",
    "Subset",
    "TokenNumbers",
    "Tokenizer",
    "Transform",
    "Transformed",
    "Vocabulary",
    "Windows",
    "array_record",
    "arrays",
    "as_floats",
    "chain",
    "cifar",
    "cifar_folder",
    "cutout",
    "decode_image",
    "diagnosed",
    "digits",
    "documents",
    "each_image",
    "each_on_device",
    "evaluation",
    "fetch",
    "first_batch_fits",
    "from_source",
    "gaussian",
    "hugging_face",
    "idx",
    "idx_folder",
    "image_folder",
    "image_transforms",
    "images",
    "items",
    "mapped",
    "mixed",
    "mixtures",
    "npy",
    "npz",
    "pack",
    "permuted",
    "rand_augment",
    "random_crop",
    "random_flip",
    "read_cifar",
    "read_idx",
    "read_table",
    "scaled",
    "shard",
    "sharded",
    "sinusoids",
    "spirals",
    "stratified_split",
    "synthetic_images",
    "table",
    "teacher_student",
    "text",
    "token_bins",
    "training",
    "vocabulary_from",
]
