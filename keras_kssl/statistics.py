"""Statistics of embeddings: dependence, distance to the uniform law, health.

Pure functions of arrays. They compute in float32, or in float64 for float64 input,
whatever the dtype policy, and their gradients are finite even where all embeddings
coincide. Embeddings are rows of unit length, shape (n, d), unless said otherwise.

On several replicas of a `tf.distribute` strategy the arrays hold one replica's rows,
and every value is that of the global batch, the same on all replicas.
"""

from keras import ops

from keras_kssl import replicas
from keras_kssl._checks import check_integer, check_rank, check_that
from keras_kssl._fusing import by_blocks
from keras_kssl._precision import matmul
from keras_kssl.kernels import (
    Zonal,
    at_least_float32,
    check_coefficients,
    second_moments,
    squared_distances,
)

# Below this squared length a vector counts as zero and is scaled, not normalised.
_SMALLEST_SQUARED_NORM = 1e-12
# Elements of a block of the Gram matrix, 4 MB, and for how many dimensions of the
# embeddings: in more of them its products take the time, not what is done to it.
_BLOCK_ELEMENTS, _BLOCK_DIM = 2**20, 1024


def unit_rows(x):
    """Scales vectors along the last axis to unit length; zero vectors stay zero."""
    return _unit_rows(at_least_float32(x))


@ops.custom_gradient
def _unit_rows(x):
    scale, is_scaled = _scales(x)
    unit = x * scale[..., None]

    def gradient(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        return _gradient_of_scaled(upstream, unit, scale, is_scaled)

    return unit, gradient


def _scales(x):
    """What brings rows to unit length, shape (...), and whether it depends on them.

    Of rows that count as zero it does not.
    """
    squared_norm = ops.sum(ops.square(x), axis=-1)
    scale = ops.rsqrt(ops.maximum(squared_norm, _SMALLEST_SQUARED_NORM))
    return scale, ops.cast(squared_norm > _SMALLEST_SQUARED_NORM, x.dtype)


def _gradient_of_scaled(upstream, unit, scale, is_scaled):
    """The gradient of rows from that of the same rows at unit length."""
    along = is_scaled * ops.sum(upstream * unit, axis=-1)
    return scale[..., None] * (upstream - along[..., None] * unit)


def hsic_from_gram(gram, num_views, num_regularized=None):
    """HSIC(Z, Y) and HSIC(Z, Z) of embeddings Z and image identity Y, exactly.

    The Hilbert-Schmidt independence criterion from the Gram matrix K of all
    embeddings. With B images, M views and n = B M::

        HSIC(Z, Y) = Σ_{same image} K_ij / (B M (M - 1)) - mean(K)
        HSIC(Z, Z) = ||H K H||_F² / n²,     H = I - 11ᵀ/n

    Self pairs count in the first sum, which puts the value 1/(M - 1) above the
    unbiased one for kernels with k(x, x) = 1; the released SSL-HSIC code does the
    same. The matrix is centred before it is squared: the expanded formula of the
    paper loses up to half of the digits of float32.

    Args:
        gram: Gram matrix (M B, M B), ordered view by view: row v B + i is view v of
            image i. On N replicas this replica's rows of it, (M B, N M B) with B its
            images: `kernel(z)`.
        num_views: number of views M, at least 2.
        num_regularized: HSIC(Z, Z) is that of the first so many views. Default: all.

    Returns:
        Tuple of two scalars, `(hsic_zy, hsic_zz)`. Time and memory O(n²).

    Four images with two identical views each, and no two images alike:

    >>> import numpy as np
    >>> zy, zz = hsic_from_gram(np.kron(np.ones((2, 2)), np.eye(4)), num_views=2)
    >>> float(zy), float(zz)
    (1.75, 0.1875)

    References:
        SSL-HSIC, arXiv 2106.08320, section 3.
    """
    gram = at_least_float32(gram)
    rows, columns = check_rank("hsic_from_gram", "gram", gram, 2, "(M B, M B)")
    num_regularized = _check_views("hsic_from_gram", num_views, num_regularized)
    check_that(
        (rows is None or columns == rows * replicas.count())
        and (rows is None or rows % num_views == 0),
        "hsic_from_gram",
        "gram",
        f"square, with a number of rows that num_views={num_views} divides",
        tuple(gram.shape),
    )
    images = ops.shape(gram)[0] // num_views
    by_view = ops.reshape(gram, (num_views, images, columns))
    return hsic_from_gram_rows([by_view[v] for v in range(num_views)], num_regularized)


def hsic_from_gram_rows(gram, num_regularized):
    """`hsic_from_gram` of each view's rows: M arrays (B, M B), on replicas (B, N M B).

    The batch stays an axis of its own: where it is shared out over devices, nothing of
    the size of the matrix goes from one to another. A view's rows are few enough for
    a cache where the matrix is not, and cost no pass back if they have no gradient.
    """
    num_views, (images, columns) = len(gram), ops.shape(gram[0])
    # Columns come replica by replica, each view by view.
    rows = num_views * images
    column = ops.arange(columns)
    column_image = (column // rows) * images + column % rows % images
    row_image = replicas.my_number() * images + ops.arange(images)
    same_image = ops.equal(row_image[:, None], column_image[None, :])
    regularized = gram[:num_regularized]
    if num_regularized < num_views:
        kept = images * num_regularized
        shape = (images, replicas.count() * kept)
        regularized = [
            ops.reshape(
                ops.reshape(view, (images, replicas.count(), rows))[..., :kept], shape
            )
            for view in regularized
        ]
    # Sums of a stack: many scalars one by one are added by TensorFlow in any order.
    similarity = ops.stack([ops.sum(ops.where(same_image, view, 0.0)) for view in gram])
    similarity, squares = replicas.global_sum(
        [ops.sum(similarity), _squares_of_centred(regularized)]
    )
    mean = replicas.global_mean(ops.mean(ops.stack([ops.mean(view) for view in gram])))
    n, n_regularized = (
        ops.cast(ops.shape(views[0])[-1], mean.dtype) for views in (gram, regularized)
    )
    hsic_zy = similarity / (n * (num_views - 1)) - mean
    return hsic_zy, squares / ops.square(n_regularized)


def _squares_of_centred(gram):
    """Sum of the squares of H K H, of each view's rows; on replicas of the own ones."""
    # What is left of the matrix sums to zero, so that no gradient goes through a mean.
    row_means = [ops.stop_gradient(ops.mean(view, axis=-1)) for view in gram]
    column_means = replicas.global_rows(ops.concatenate(row_means))
    column_means = column_means - ops.mean(column_means)
    return ops.sum(
        ops.stack(
            [
                _sum_of_squares(view - means[:, None] - column_means)
                for view, means in zip(gram, row_means, strict=True)
            ]
        )
    )


@ops.custom_gradient
def _sum_of_squares(x):
    """Sum of the squares of an array, whose gradient is one pass over it."""

    def gradient(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        return 2.0 * upstream * x

    return ops.sum(ops.square(x)), gradient


def hsic_from_features(features_1, features_2, num_regularized=None):
    """HSIC(Z, Y) and HSIC(Z, Z) estimated from two draws of random features.

    With φ(z) the D features of one embedding, s_i = Σ_views φ_1(z) of image i, and
    n = B M::

        HSIC(Z, Y) = Σ_i ||s_i||² / (B M (M - 1)) - ||Σ_i s_i||² / n²
        HSIC(Z, Z) = ||C||_F² / n²,
        C = Σ (φ_1(z) - mean φ_1)(φ_2(z) - mean φ_2)ᵀ over views and images

    Linear in the batch: O(n D²) time and O(n D + D²) memory. One draw must serve all
    views; two independent draws keep HSIC(Z, Z) unbiased.

    Args:
        features_1: features of the first draw; they alone give HSIC(Z, Y). M arrays
            (B, D), one for each view, or one array (M, B, D). Views apart that have no
            gradient cost no pass back.
        features_2: features of the second draw, likewise.
        num_regularized: HSIC(Z, Z) is that of the first so many views. Default: all.

    Returns:
        Tuple of two scalars, `(hsic_zy, hsic_zz)`.

    References:
        SSL-HSIC, arXiv 2106.08320, appendix B.
    """
    views_1 = _feature_views("features_1", features_1)
    views_2 = _feature_views("features_2", features_2)
    num_views = len(views_1)
    shapes = [[view.shape[0] for view in views] for views in (views_1, views_2)]
    check_that(
        shapes[0] == shapes[1],
        "hsic_from_features",
        "features_2",
        f"of as many views and images as `features_1`, {num_views} of {shapes[0]}",
        shapes[1],
    )
    num_regularized = _check_views("hsic_from_features", num_views, num_regularized)
    num_images = _num_rows(views_1[0])
    n, n_regularized = num_images * num_views, num_images * num_regularized

    # Of a stack: many arrays one by one are added by TensorFlow in any order.
    of_images = ops.sum(ops.stack(views_1), axis=0)
    kept_1, kept_2 = views_1[:num_regularized], views_2[:num_regularized]
    sums = [ops.sum(ops.square(of_images)), ops.sum(of_images, axis=0)]
    sums += [sum(ops.sum(view, axis=0) for view in kept) for kept in (kept_1, kept_2)]
    similarity, total, total_1, total_2 = replicas.global_sum(sums)
    hsic_zy = similarity / (n * (num_views - 1)) - ops.sum(ops.square(total / n))
    # The other factor sums to zero, so that no gradient goes through a mean.
    mean_1 = ops.stop_gradient(total_1 / n_regularized)
    mean_2 = ops.stop_gradient(total_2 / n_regularized)
    covariance = sum(
        matmul(ops.transpose(view_1 - mean_1), view_2 - mean_2)
        for view_1, view_2 in zip(kept_1, kept_2, strict=True)
    )
    covariance = replicas.global_sum(covariance) / n_regularized
    return hsic_zy, ops.sum(ops.square(covariance))


def mmd_to_uniform(z, coefficients=(1.0, 40.0, 40.0)):
    """Squared maximum mean discrepancy of embeddings to the uniform law on the sphere.

    For the rotation-invariant kernel φ(u·v) = Σ_l b_l P_l(u·v)::

        R(z) = 1/N² Σ_ij φ(z_i·z_j),     diagonal included

    which is 0 only for a law whose moments up to degree L are those of the uniform
    law, Σ_l b_l for collapsed embeddings, and at least Σ_l b_l / N from the diagonal
    for high-dimensional embeddings.

    Degrees 1 and 2 are moments, R = b_1 ||mean z||² + b_2 q/(q-1) ||ZᵀZ/N - I/q||_F²:
    for at most two coefficients and q < N this form is taken, O(N q²) time and O(q²)
    memory; otherwise blocks of the Gram matrix, O(N² q) time and O(N q) memory. The
    values agree.

    Args:
        z: embeddings of any length, shape (N, q), q >= 2; u, v and z_i of the formulas
            are their directions.
        coefficients: b_1 ... b_L, non-negative.

    Returns:
        Scalar.

    >>> import numpy as np
    >>> round(float(mmd_to_uniform(np.ones((5, 4)) / 2, (1.0, 40.0, 40.0))), 3)
    81.0

    References:
        SFRIK, arXiv 2208.00789, section 3.
    """
    z = at_least_float32(z)
    num_rows, dim = check_rank("mmd_to_uniform", "z", z, 2, "(N, q)")
    coefficients = check_coefficients("mmd_to_uniform", coefficients)
    covariance_is_cheaper = num_rows is None or dim < num_rows * replicas.count()
    n = _num_rows(z)
    if len(coefficients) > 2 or (len(coefficients) == 2 and not covariance_is_cheaper):
        total = _sum_of_values(Zonal(coefficients))(z)
        return replicas.global_sum(total) / ops.square(n)
    z = unit_rows(z)
    if len(coefficients) == 1:
        total = replicas.global_sum(ops.sum(z, axis=0))
        return coefficients[0] * ops.sum(ops.square(total / n))
    moments = [ops.sum(z, axis=0), second_moments(z)]
    total, moments = replicas.global_sum(moments)
    excess = moments / n - ops.eye(dim, dtype=z.dtype) / dim
    first = coefficients[0] * ops.sum(ops.square(total / n))
    return first + coefficients[1] * dim / (dim - 1) * ops.sum(ops.square(excess))


def _sum_of_values(kernel):
    """Function from rows z to the sum of a zonal kernel over all pairs of directions.

    On N replicas over pairs of an own row with any. The gradient, 2 k'(u uᵀ) u for the
    rows u of unit length, is computed along with the value, a block of rows at a time:
    of arrays as large as z nothing but that gradient is kept, not even u, and of the
    Gram matrix nothing.
    """

    @ops.custom_gradient
    def total(z):
        every = replicas.global_rows(z)
        column_scale = _scales(every)[0]

        def of_block(rows):
            scale, is_scaled = _scales(rows)
            rows = rows * scale[:, None]
            products = matmul(rows, ops.transpose(every)) * column_scale
            values, slope = kernel.with_slope(products, z.shape[-1])
            slope = 2.0 * matmul(slope * column_scale, every)
            return ops.sum(values), _gradient_of_scaled(slope, rows, scale, is_scaled)

        value, slope = by_blocks(of_block, z, _num_blocks(*z.shape, every.shape[0]))

        def gradient(*args, upstream=None):
            if upstream is None:
                (upstream,) = args
            return upstream * slope

        return value, gradient

    return total


def _num_blocks(rows, dim, columns):
    """A divisor of the rows: blocks whose products with so many columns are small."""
    if rows is None or columns is None:
        return 1
    elements = _BLOCK_ELEMENTS * max(1, dim // _BLOCK_DIM)
    count = -(-rows * columns // elements)
    # Next to no divisors: rather blocks that are too large than ever so many.
    fitting = [n for n in range(count, 4 * count + 1) if rows % n == 0]
    return fitting[0] if fitting else 1


def alignment(z_1, z_2):
    """Mean squared distance between two views' directions, 0 (best) to 4.

    Args:
        z_1, z_2: embeddings (n, d) of any length, scaled to unit length here; row i of
            both from one image.
    """
    z_1, z_2 = at_least_float32(z_1), at_least_float32(z_2)
    return replicas.global_mean(_alignment(z_1, z_2))


@ops.custom_gradient
def _alignment(z_1, z_2):
    """Of this replica's rows, with a gradient that keeps no rows of unit length.

    Of ||u_1 - u_2||² by z_1 it is 2 s_1 (c s_1 z_1 - s_2 z_2), with s the scales,
    u = s z, and c the cosine, or 1 where z_1 counts as zero and s_1 is a constant.
    """
    scale_1, is_scaled_1 = _scales(z_1)
    scale_2, is_scaled_2 = _scales(z_2)
    difference = z_1 * scale_1[:, None] - z_2 * scale_2[:, None]
    cosine = ops.sum(z_1 * z_2, axis=-1) * scale_1 * scale_2

    def gradient(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        weight = 2.0 * upstream / ops.cast(ops.shape(z_1)[0], z_1.dtype)

        def of(own, scale, is_scaled, other, other_scale):
            kept = 1.0 - is_scaled * (1.0 - cosine)
            own_weight, other_weight = kept * scale**2, scale * other_scale
            return weight * (own_weight[:, None] * own - other_weight[:, None] * other)

        return (
            of(z_1, scale_1, is_scaled_1, z_2, scale_2),
            of(z_2, scale_2, is_scaled_2, z_1, scale_1),
        )

    return ops.mean(ops.sum(ops.square(difference), axis=-1)), gradient


def uniformity(z, scale=2.0):
    """Logarithm of the mean Gaussian potential over pairs, log mean exp(-s ||u-v||²).

    0 for collapsed embeddings; the lower, the more evenly they cover the sphere (about
    -2 s for high-dimensional uniform ones). Pairs of a row with itself do not count.
    O(n² d).

    Args:
        z: embeddings (n, d) of unit length, n >= 2.
        scale: s > 0.

    References:
        Wang and Isola, arXiv 2005.10242, where s is called t.
    """
    z = at_least_float32(z)
    num_rows = _num_rows(z)
    potentials = ops.exp(-scale * squared_distances(z))
    # A row has the distance 0 to itself, exactly.
    pairs = replicas.global_sum(ops.sum(potentials)) - num_rows
    # Potentials of 1e-30 and less cannot be told from 0 in float32.
    return ops.log(ops.maximum(pairs / (num_rows * (num_rows - 1.0)), 1e-30))


def spread(z):
    """Mean standard deviation of the coordinates, as a share of the uniform law's.

    1 for embeddings that are uniform on the sphere, 0 for collapsed ones. Formula, with
    σ_j the standard deviation (over n, not n - 1) of coordinate j: Σ_j σ_j / √d.
    O(n d).

    Args:
        z: embeddings (n, d) of unit length.

    >>> import numpy as np
    >>> float(spread(np.array([[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0]])))
    1.0
    """
    z = at_least_float32(z)
    n, dim = _num_rows(z), ops.cast(ops.shape(z)[1], z.dtype)
    # Centred before it is squared: near collapse the difference of two sums is all
    # rounding error.
    centred = z - replicas.global_sum(ops.sum(z, axis=0)) / n
    variances = replicas.global_sum(ops.sum(ops.square(centred), axis=0)) / n
    return ops.sum(ops.sqrt(variances)) / ops.sqrt(dim)


def effective_rank(z):
    """Effective rank (RankMe): exp of the entropy of the normalised singular values.

    From 1 (all rows on one line) to min(n, d) (all directions used alike). The rows
    are neither centred nor normalised here. O(n d min(n, d)).

    Args:
        z: embeddings (n, d).

    >>> import numpy as np
    >>> round(float(effective_rank(np.eye(8)[:, :6])), 4)
    6.0

    References:
        Garrido et al., arXiv 2210.02885, equation 1; they add 1e-7 to each
        probability, here 0 log 0 = 0.
    """
    z = at_least_float32(z)
    check_rank("effective_rank", "z", z, 2, "(n, d)")
    z = replicas.global_rows(z)
    return rank_of_spectrum(ops.svd(z, compute_uv=False))


def rank_of_spectrum(singular_values):
    """exp of the entropy of non-negative numbers scaled to sum 1, shape (k,)."""
    tiny = 1e-30
    share = singular_values / ops.maximum(ops.sum(singular_values), tiny)
    return ops.exp(-ops.sum(share * ops.log(ops.maximum(share, tiny))))


def _num_rows(x):
    """Rows of the global batch, as a number of the array's type."""
    return ops.cast(ops.shape(x)[0] * replicas.count(), x.dtype)


def _feature_views(argument, features):
    """Features as a list of arrays (B, D) of at least float32, one for each view."""
    if not isinstance(features, list | tuple):
        check_rank("hsic_from_features", argument, features, 3, "(M, B, D)")
        features = ops.unstack(features)
    for view in features:
        check_rank("hsic_from_features", argument, view, 2, "M arrays (B, D)")
    return [at_least_float32(view) for view in features]


def _check_views(caller, num_views, num_regularized):
    """Checks numbers of views and returns how many HSIC(Z, Z) is over."""
    check_integer(caller, "num_views", num_views, minimum=2)
    if num_regularized is None:
        return num_views
    return check_integer(caller, "num_regularized", num_regularized, 1, num_views)
