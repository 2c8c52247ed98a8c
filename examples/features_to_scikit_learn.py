"""Put an encoder's features into a scikit-learn pipeline.

The encoder stays as it is; its features are arrays, and everything in scikit-learn is
open. Half a minute on two CPU cores:

    python examples/features_to_scikit_learn.py ssl_hsic_resnet10_cifar10
"""

import argparse

from sklearn.linear_model import LogisticRegression
from sklearn.metrics import classification_report
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import keras_kssl as kssl


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", help="what zoo.load takes: a run, a file, a preset")
    parser.add_argument("--train", default="builtin:digits:train")
    parser.add_argument("--test", default="builtin:digits:test")
    parser.add_argument("--limit", type=int, help="use the first so many images only")
    parser.add_argument("--size", type=int, help="brings photos of many sizes to one")
    options = parser.parse_args(arguments)

    encoder = kssl.zoo.load(options.encoder)
    train, test = (
        kssl.data.open_source(text, limit=options.limit)
        for text in (options.train, options.test)
    )
    x, y = kssl.evaluation.extract_features(encoder, train, size=options.size)
    test_x, _ = kssl.evaluation.extract_features(encoder, test, size=options.size)
    test_y = kssl.data.labels_like(test, train)

    # The strength is chosen by cross-validation on training images.
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    strengths = {"logisticregression__C": [1e-3, 1e-2, 0.1, 1.0]}
    search = GridSearchCV(pipeline, strengths, cv=3).fit(x, y)
    print("chosen:", search.best_params_)
    print(classification_report(test_y, search.predict(test_x), zero_division=0.0))


if __name__ == "__main__":
    main()
