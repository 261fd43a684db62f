"""The columns of every artifact. Increase a stage's version when its arithmetic changes.

All per-query artifacts have one row per query (predictions: one per query, adjustment and seed),
sorted by query_id, so that rows [a, b) of each belong to the same queries.
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
    "image_captions": 1,
    "ranks": 1,
    "retrieval_metrics": 1,
    "retrieval_comparisons": 1,
}

COLUMNS = {  # the meaning of each column, the same in every artifact
    "dataset": "The card's name.",
    "model": "An inference model; in query_embeddings any model, in candidates the coarse one, in "
    "captions the fine one.",
    "query_id": "A test image: its position among the dataset's images, sorted by uri.",
    "label": "A class, numbered from 0; null in a retrieval dataset.",
    "class_name": "The name of the class; null in a retrieval dataset.",
    "uri": "A test image's file, relative to the card's root.",
    "sha256": "The sha256 of the file's bytes.",
    "prompt": "The first of the class's prompts.",
    "prompts": "All prompts of the class; its feature is the mean over them.",
    "cause": "Why the image cannot be used; in a retrieval dataset also why a caption cannot.",
    "embedding": "Features of unit length.",
    "view": "Which augmented view; 0 is the clean one.",
    "memory_ids": "Rows of the memory snapshot, best first.",
    "memory_keys": "The sha256 of these rows' images.",
    "similarities": "Inner products: in candidates coarse, image to image; in captions fine, image "
    "to text, or coarse if `retrieval.fine` is `indirect`.",
    "memory_id": "A row of the memory snapshot.",
    "memory_key": "The sha256 of the row's image.",
    "kind": "`same bytes` or `near`.",
    "similarity": "Inner product in the coarse space; null if the row is not among the candidates.",
    "captions": "The texts that were kept, up to the largest M.",
    "truncated_count": "Number of these captions that the model's text limit cut; null without a "
    "memory.",
    "text_sha256": "The sha256 of the text.",
    "norm": "Norm of the features before they were normalised.",
    "truncated": "Whether the text is longer than the model's native limit.",
    "checksum": "The begin of the sha256 of the row and its model, compared when it is read.",
    "image_scores": "Probability of each class, from the image.",
    "text_scores": "Probability of each class, from the captions; null without captions.",
    "class_scores": "Probability of each class, from the method; of an ordered one without others.",
    "features": "What an ordered method compares images by.",
    "entropy": "Entropy of an ordered method's probabilities, in nats.",
    "near": "The labels that an ordered method holds possible.",
    "image_confidence": "1 - entropy / log C of the image scores.",
    "text_confidence": "1 - entropy / log C of the text scores; null without captions.",
    "caption_count": "Number of captions that were scored, at most M; null without a memory.",
    "method": "A method of `xmore/methods/`.",
    "adjustment": "How confidences become weights; null if the method has none.",
    "m": "Number of captions requested; null if the method reads none, or without a memory.",
    "seed": "Seed of the order of the queries; null if the method ignores the order.",
    "step": "The query's position in that order, from 1; null if the method ignores the order.",
    "image_weight": "Weight of the image scores; null without weights.",
    "text_weight": "Weight of the text scores; null without weights.",
    "prediction": "The predicted label; null without a prediction.",
    "probability": "Probability of the predicted label; null without a prediction.",
    "image_prediction": "The label that the image scores alone predict.",
    "text_prediction": "The label that the text scores alone predict; null without captions.",
    "top5": "In predictions the five best labels, empty without a prediction; in metrics the share "
    "of queries whose label is among them.",
    "n": "Number of queries.",
    "n_covered": "Number of queries with at least one caption.",
    "n_short": "Number of queries with fewer than m captions.",
    "top1": "Share of correctly predicted queries; no prediction counts as wrong.",
    "top1_covered": "top1 over the queries with at least one caption; null if there are none.",
    "ci_low": "Lower end of the 95 % interval over the queries: Wilson's of top1, or the paired "
    "bootstrap of difference; in retrieval over the images.",
    "ci_high": "Upper end of that interval.",
    "ece": "Expected calibration error, 15 bins; null without any prediction.",
    "mean_image_entropy": "Mean entropy of the image scores, in nats, over the queries.",
    "mean_text_entropy": "Mean entropy of the text scores, in nats, over the queries with a "
    "caption; null if the method reads none.",
    "hyperparameters": "JSON: name -> value and source: `paper`, `fixed` (set before any label was "
    "seen), `validation` or `oracle` (searched on the test labels).",
    "baseline": "The method that this one is compared with.",
    "baseline_adjustment": "The baseline's adjustment; null if it has none.",
    "only_method": "Number of queries that only the method predicts correctly, for the seed of p.",
    "only_baseline": "Number of queries that only the baseline predicts correctly, for that seed.",
    "difference": "top1 of the method minus that of the baseline, mean over the order seeds; "
    "in retrieval the recall of the model minus that of the baseline model.",
    "prompt_set": "A prompt set of the config; empty if the run has only one.",
    "baseline_prompt_set": "The prompt set of the baseline; another one only for the same method.",
    "p": "p of the exact McNemar test, the largest over the order seeds; in retrieval of the exact "
    "sign test over the images, which is McNemar's where an image has one query.",
    "p_holm": "p corrected by Holm over all rows of this model and baseline; between prompt sets, "
    "over all rows of this model and of the baseline's set; in retrieval over all rows of this "
    "baseline model.",
    "caption_id": "A caption of a test image: its position among the dataset's, by image; of an "
    "image's own rank the best of its captions.",
    "caption": "Its text.",
    "direction": "`image-to-text`, a rank per image, or `text-to-image`, one per caption.",
    "rank": "The position, from 1, of the caption's image, or of the best of the image's captions, "
    "by inner product; equal ones are in the order of their ids.",
    "tied": "How many that do not belong to the query are exactly as similar.",
    "k": "How many of the most similar are looked at.",
    "recall": "Share of the queries that find what belongs to them among the first k.",
    "n_tied": "Number of queries whose rank the order of equal similarities decides.",
    "median_rank": "Median of the ranks, the same for every k.",
    "baseline_model": "The inference model that this one is compared with.",
    "only_model": "Number of images of whose queries the model finds more than the baseline model.",
    "only_baseline_model": "Number of images of whose queries it finds fewer.",
    "minimum_detectable": "The difference that p < 0.05 would find in 8 of 10 cases; null if too "
    "few queries differ.",
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
LEAKS = pa.schema(  # one row per pair of a query and a memory row with the same image
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
METHOD_SCORES = pa.schema(  # of a method that computes its own scores
    [("query_id", pa.int64()), ("method", pa.string()), ("class_scores", _floats)]
)
EVIDENCE = pa.schema(  # method_scores of a method whose scores depend on the order of the queries
    [
        *METHOD_SCORES,
        ("prediction", pa.int32()),
        ("entropy", pa.float64()),
        ("features", _floats),
        ("near", pa.list_(pa.int32())),
    ]
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
COMPARISONS = pa.schema(  # one row per pair of methods, for a dataset, model and M
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
COMPARISONS_OF_SETS = pa.schema(  # of a run with several prompt sets
    [*COMPARISONS, ("prompt_set", pa.string()), ("baseline_prompt_set", pa.string())]
)
IMAGE_CAPTIONS = pa.schema(  # of a retrieval dataset: the captions of an image are adjacent
    [("caption_id", pa.int64()), ("query_id", pa.int64()), ("caption", pa.string())]
)
RANKS = pa.schema(  # the rows of all images, then those of all captions
    [
        ("direction", pa.string()),
        ("query_id", pa.int64()),
        ("caption_id", pa.int64()),
        ("rank", pa.int64()),
        ("tied", pa.int64()),
    ]
)
RETRIEVAL_METRICS = pa.schema(
    [
        ("model", pa.string()),
        ("direction", pa.string()),
        ("k", pa.int32()),
        ("n", pa.int64()),
        ("recall", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("median_rank", pa.float64()),
        ("n_tied", pa.int64()),
    ]
)
RETRIEVAL_COMPARISONS = pa.schema(  # one row per pair of models, for a dataset, direction and k
    [
        ("dataset", pa.string()),
        ("direction", pa.string()),
        ("k", pa.int32()),
        ("model", pa.string()),
        ("baseline_model", pa.string()),
        ("n", pa.int64()),
        ("only_model", pa.int64()),
        ("only_baseline_model", pa.int64()),
        ("difference", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("p", pa.float64()),
        ("p_holm", pa.float64()),
    ]
)


def query_embeddings(dim: int) -> pa.Schema:
    """Return the schema of `query_embeddings` for `dim` dimensions; rows are unit vectors."""
    return pa.schema([("query_id", pa.int64()), ("embedding", pa.list_(pa.float32(), dim))])


def view_embeddings(dim: int) -> pa.Schema:
    """Return the schema of `view_embeddings`: one row per augmented view.

    The rows of a query are adjacent, the clean view first.
    """
    return pa.schema(
        [
            ("query_id", pa.int64()),
            ("view", pa.int32()),
            ("embedding", pa.list_(pa.float32(), dim)),
        ]
    )


def caption_embeddings(dim: int) -> pa.Schema:
    """Return the schema of `caption_embeddings`: unit rows, and their norm before normalising.

    Older parts, in Parquet, have `text_sha256` in hexadecimal digits, and no `checksum`.
    """
    return pa.schema(
        [
            ("text_sha256", pa.binary(32)),
            ("embedding", pa.list_(pa.float32(), dim)),
            ("norm", pa.float32()),
            ("truncated", pa.bool_()),
            ("checksum", pa.uint64()),
        ]
    )


def fixed_lists(matrix: np.ndarray) -> pa.FixedSizeListArray:
    """Convert (N, D) float32 to a column of N fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def lists(values: np.ndarray, keep: np.ndarray, kind: pa.DataType) -> pa.ListArray:
    """Convert (N, K) values to N lists of `kind`, in order; `keep` is an (N, K) bool mask."""
    offsets = np.concatenate([[0], np.cumsum(keep.sum(1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[keep], kind))


def matrix_lists(matrix: np.ndarray, present: np.ndarray | None = None) -> pa.ListArray:
    """Convert (N, C) float32 to N lists of C values; rows not `present` ((N,) bool) become null."""
    n, c = matrix.shape
    if present is None:
        present = np.ones(n, bool)
    offsets = np.concatenate([[0], np.cumsum(present * c)]).astype(np.int32)
    nulls = np.concatenate([~present, [False]])
    values = pa.array(np.ascontiguousarray(matrix[present]).reshape(-1), pa.float32())
    return pa.ListArray.from_arrays(pa.array(offsets, mask=nulls), values)


def to_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Convert a column of equally long lists to (N, D); null rows become NaN."""
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
    """Convert a column of N lists to (flat values, (N,) lengths); null has length 0."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    lengths = array.value_lengths().fill_null(0).to_numpy()
    return array.flatten().to_numpy(zero_copy_only=False), lengths
