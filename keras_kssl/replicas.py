"""Replicas that share one global batch: what a step asks of tf.distribute.

A step of a `tf.distribute` strategy runs once per replica, on that replica's rows of
the global batch. What belongs to the global batch is put together here, by sums where
sums are enough. All functions leave arrays as they are where there is one replica:
without a strategy, outside a step, and on the JAX backend, where a batch that is shared
out over devices is still one array.

Losses are the same number on every replica. A strategy adds up the gradients of all
replicas, so that each gives back its share, `loss / count()`.
"""

import keras


def num_replicas():
    """Replicas that the strategy of this scope keeps in step; otherwise 1."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def count():
    """Replicas that share the batch of the step that this code belongs to."""
    context = _context()
    return 1 if context is None else context.num_replicas_in_sync


def is_multi_worker():
    """Whether the strategy of this scope spans several processes."""
    if num_replicas() == 1:
        return False
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def global_sum(values):
    """Sum over all replicas of an array, or of each array of a list, in one exchange.

    Differentiable: the gradient is summed over the replicas too.
    """
    context = _context()
    if context is None:
        return values
    import tensorflow as tf

    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def global_mean(values):
    """Mean over all replicas of an array, each having as many rows."""
    return global_sum(values) / count()


def global_rows(x):
    """Rows of all replicas, (n, ...) -> (count n, ...), in the order of the replicas.

    Differentiable.
    """
    context = _context()
    if context is None:
        return x
    rows = context.all_gather(x, axis=0)
    if x.shape[0] is None:
        return rows
    # TensorFlow does not know that every replica has as many.
    return keras.ops.reshape(rows, (x.shape[0] * count(), *x.shape[1:]))


def my_rows(x):
    """This replica's rows of an array that all replicas have alike.

    Args:
        x: array (count n, ...).

    Returns:
        Array (n, ...): where replica r finds its part of the global batch.
    """
    context = _context()
    if context is None:
        return x
    rows, *others = keras.ops.shape(x)
    size = rows // count()
    # A slice of constant size, which XLA can compile for a replica that it does not
    # know.
    start = [my_number() * size] + [0] * len(others)
    return keras.ops.slice(x, start, (size, *others))


def my_number():
    """Number of this replica, from 0; a tensor in some strategies."""
    context = _context()
    return 0 if context is None else context.replica_id_in_sync_group


def _context():
    """The replica for which a step is being run; `None` where there is only one."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    is_alone = context is None or context.num_replicas_in_sync == 1
    return None if is_alone else context
