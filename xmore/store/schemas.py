"""Every artifact's columns, in one place. Bump a stage's version when its arithmetic changes.

All per-query artifacts have one row a query (predictions: one per query, adjustment and seed),
sorted by query_id, so that rows [a, b) of each speak of the same queries.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

STAGE_VERSIONS = {
    "queries": 1,
    "rejected": 1,
    "classes": 2,
    "query_embeddings": 1,
    "view_embeddings": 1,
    "candidates": 2,
    "leaks": 1,
    "captions": 1,
    "caption_embeddings": 1,
    "scores": 1,
    "method_scores": 1,
    "predictions": 1,
    "metrics": 3,
    "comparisons": 1,
}

COLUMNS = {  # what each column is, in whichever artifact it stands
    "dataset": "The card's name.",
    "model": "An inference model; of query_embeddings any model, of candidates the coarse one, of "
    "captions the fine one.",
    "query_id": "A test image: its place among the dataset's, by uri.",
    "label": "A class, from 0.",
    "class_name": "Its name.",
    "uri": "A test image's file, relative to the card's root.",
    "sha256": "Of the file's bytes.",
    "prompt": "The first of the class's prompts.",
    "prompts": "All of them; the class is their mean.",
    "cause": "Why the image cannot be used.",
    "embedding": "Features of unit length.",
    "view": "Which augmented view; 0 is the clean one.",
    "memory_ids": "Rows of the memory snapshot, the best first.",
    "memory_keys": "The sha256 of these rows' images.",
    "similarities": "Inner products: coarse, image to image; of captions fine, image to text, or "
    "coarse where `retrieval.fine` is `indirect`.",
    "memory_id": "A row of the memory snapshot.",
    "memory_key": "The sha256 of its image.",
    "kind": "`same bytes` or `near`.",
    "similarity": "In the coarse space; null where the row is no candidate of the query.",
    "captions": "The texts that were kept, as far as the largest M.",
    "truncated_count": "Of these captions, those cut by the model's text limit.",
    "text_sha256": "Of the text.",
    "norm": "Length of the features before they were normalised.",
    "truncated": "Whether the text is longer than the model's native limit.",
    "image_scores": "Probability of each class, by the image.",
    "text_scores": "The same by its captions; null without captions.",
    "class_scores": "Probability of each class, by the method.",
    "image_confidence": "1 - entropy / log C of the image's scores.",
    "text_confidence": "The same of the captions'; null without captions.",
    "caption_count": "Captions that were scored, at most M.",
    "method": "A method of `xmore/methods/`.",
    "adjustment": "How confidences become weights; null where the method has none.",
    "m": "Number of captions asked for; null where the method reads none.",
    "seed": "Of the order in which queries came; null where order plays no part.",
    "step": "The query's place in that order, from 1; null likewise.",
    "image_weight": "What the image's scores were weighted with; null without weights.",
    "text_weight": "What the captions' were; null likewise.",
    "prediction": "The answer, a label; null where the method has none.",
    "probability": "Its probability; null likewise.",
    "image_prediction": "What the image alone says.",
    "text_prediction": "What its captions alone say; null without captions.",
    "top5": "In predictions the five best labels, none without an answer; in metrics the share of "
    "queries whose label is among them.",
    "n": "Queries.",
    "n_covered": "Queries with a caption.",
    "n_short": "Queries with fewer than m captions.",
    "top1": "Share of queries answered rightly; no answer is wrong.",
    "top1_covered": "The same over queries with a caption; null where none has one.",
    "ci_low": "95 % interval over the queries: Wilson's of top1, or the paired bootstrap of "
    "difference.",
    "ci_high": "Its upper end.",
    "ece": "Expected calibration error, 15 bins; null where nothing was answered.",
    "mean_image_entropy": "Nats, over the queries.",
    "mean_text_entropy": "Nats, over the queries with a caption; null where the method reads none.",
    "hyperparameters": "JSON: name -> its value, and its source: `paper`, `fixed` (set before any "
    "label was seen), `validation` or `oracle` (searched on the test labels).",
    "baseline": "The method that is compared with.",
    "baseline_adjustment": "Its adjustment; null where it has none.",
    "only_method": "Queries that the method alone has right, in the order that p is of.",
    "only_baseline": "Queries that the baseline alone has right.",
    "difference": "Of top1, method - baseline, mean over the order seeds.",
    "p": "Exact McNemar, the largest of the order seeds.",
    "p_holm": "Corrected by Holm over all rows of this model and baseline.",
    "minimum_detectable": "The difference that p < 0.05 would find in 8 of 10 cases; null where "
    "too few queries differ.",
}

_ids = pa.list_(pa.int64())
_keys = pa.list_(pa.string())
_floats = pa.list_(pa.float32())

QUERIES = pa.schema(
    [
        ("query_id", pa.int64()),
        ("label", pa.int32()),
        ("class_name", pa.string()),
        ("uri", pa.string()),
        ("sha256", pa.string()),
    ]
)
REJECTED = pa.schema([("uri", pa.string()), ("cause", pa.string())])
CLASSES = pa.schema(
    [
        ("label", pa.int32()),
        ("class_name", pa.string()),
        ("prompt", pa.string()),
        ("prompts", pa.list_(pa.string())),
    ]
)
CANDIDATES = pa.schema(
    [
        ("query_id", pa.int64()),
        ("memory_ids", _ids),
        ("memory_keys", _keys),
        ("similarities", _floats),
    ]
)
LEAKS = pa.schema(  # a row a pair of a query and a memory row that are one image
    [
        ("query_id", pa.int64()),
        ("memory_id", pa.int64()),
        ("memory_key", pa.string()),
        ("kind", pa.string()),
        ("similarity", pa.float32()),
    ]
)
CAPTIONS = pa.schema(
    [
        ("query_id", pa.int64()),
        ("memory_ids", _ids),
        ("memory_keys", _keys),
        ("captions", pa.list_(pa.string())),
        ("similarities", _floats),
        ("truncated_count", pa.int32()),
    ]
)
SCORES = pa.schema(
    [
        ("query_id", pa.int64()),
        ("image_scores", _floats),
        ("text_scores", _floats),
        ("image_confidence", pa.float64()),
        ("text_confidence", pa.float64()),
        ("caption_count", pa.int32()),
        ("truncated_count", pa.int32()),
    ]
)
METHOD_SCORES = pa.schema(  # of a method that scores classes by itself
    [("query_id", pa.int64()), ("method", pa.string()), ("class_scores", _floats)]
)
PREDICTIONS = pa.schema(
    [
        ("query_id", pa.int64()),
        ("method", pa.string()),
        ("adjustment", pa.string()),
        ("model", pa.string()),
        ("m", pa.int32()),
        ("seed", pa.int64()),
        ("step", pa.int64()),
        ("image_weight", pa.float64()),
        ("text_weight", pa.float64()),
        ("prediction", pa.int32()),
        ("probability", pa.float64()),
        ("image_prediction", pa.int32()),
        ("text_prediction", pa.int32()),
        ("top5", pa.list_(pa.int32())),
    ]
)
METRICS = pa.schema(
    [
        ("method", pa.string()),
        ("adjustment", pa.string()),
        ("model", pa.string()),
        ("m", pa.int32()),
        ("seed", pa.int64()),
        ("n", pa.int64()),
        ("n_covered", pa.int64()),
        ("n_short", pa.int64()),
        ("top1", pa.float64()),
        ("top1_covered", pa.float64()),
        ("top5", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("ece", pa.float64()),
        ("mean_image_entropy", pa.float64()),
        ("mean_text_entropy", pa.float64()),
        ("hyperparameters", pa.string()),
    ]
)
COMPARISONS = pa.schema(  # a row a pair of methods on a dataset, under one model and M
    [
        ("dataset", pa.string()),
        ("model", pa.string()),
        ("method", pa.string()),
        ("adjustment", pa.string()),
        ("m", pa.int32()),
        ("baseline", pa.string()),
        ("baseline_adjustment", pa.string()),
        ("n", pa.int64()),
        ("only_method", pa.int64()),
        ("only_baseline", pa.int64()),
        ("difference", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("p", pa.float64()),
        ("p_holm", pa.float64()),
        ("minimum_detectable", pa.float64()),
    ]
)


def query_embeddings(dim: int) -> pa.Schema:
    """Schema of `query_embeddings` for a model of `dim` dimensions; rows are unit vectors."""
    return pa.schema([("query_id", pa.int64()), ("embedding", pa.list_(pa.float32(), dim))])


def view_embeddings(dim: int) -> pa.Schema:
    """Schema of `view_embeddings`: a row a view, a query's next to each other, the clean first."""
    return pa.schema(
        [
            ("query_id", pa.int64()),
            ("view", pa.int32()),
            ("embedding", pa.list_(pa.float32(), dim)),
        ]
    )


def caption_embeddings(dim: int) -> pa.Schema:
    """Schema of `caption_embeddings`: unit rows; `norm` is their length before normalising."""
    return pa.schema(
        [
            ("text_sha256", pa.string()),
            ("embedding", pa.list_(pa.float32(), dim)),
            ("norm", pa.float32()),
            ("truncated", pa.bool_()),
        ]
    )


def fixed_lists(matrix: np.ndarray) -> pa.FixedSizeListArray:
    """(N, D) float32 -> a column of N fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def lists(values: np.ndarray, keep: np.ndarray, kind: pa.DataType) -> pa.ListArray:
    """(N, K) values and the (N, K) mask of those to keep -> N lists of `kind`, in order."""
    offsets = np.concatenate([[0], np.cumsum(keep.sum(1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[keep], kind))


def matrix_lists(matrix: np.ndarray, present: np.ndarray | None = None) -> pa.ListArray:
    """(N, C) float32 -> N lists of C values; rows that are not `present` become null."""
    n, c = matrix.shape
    if present is None:
        present = np.ones(n, bool)
    offsets = np.concatenate([[0], np.cumsum(present * c)]).astype(np.int32)
    nulls = np.concatenate([~present, [False]])
    values = pa.array(np.ascontiguousarray(matrix[present]).reshape(-1), pa.float32())
    return pa.ListArray.from_arrays(pa.array(offsets, mask=nulls), values)


def to_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of equally long lists -> (N, D); null rows become NaN."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # an empty column has no chunk to combine
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    flat = array.flatten().to_numpy(zero_copy_only=False)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    width = len(flat) // max(int(valid.sum()), 1)
    if valid.all() or not width:
        return flat.reshape(len(array), width)
    matrix = np.full((len(array), width), np.nan, flat.dtype)
    matrix[valid] = flat.reshape(-1, width)
    return matrix


def to_ragged(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists -> (flat values, length of each list)."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    lengths = array.value_lengths().fill_null(0).to_numpy()
    return array.flatten().to_numpy(zero_copy_only=False), lengths
