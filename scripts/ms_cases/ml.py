#!/usr/bin/env python3
"""Cases for operators of ai.onnx.ml and a few of ONNX's own, with ONNX Runtime's results as expected outputs.

usage: ml.py DIR     writes DIR/test_*/{model.onnx,test_data_set_0/*.pb}; needs onnx, onnxruntime and numpy, and
                     with scikit-learn and skl2onnx also writes exported pipelines
"""
import os
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

rng = np.random.default_rng(1)
root = sys.argv[1]


def f(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def save(name, model, feeds):
    """Writes a case; one that ONNX Runtime refuses is left out."""
    try:
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        outputs = session.run(None, feeds)
    except Exception as e:
        print("left out", name, str(e).splitlines()[0][:120])
        return
    folder = os.path.join(root, "test_" + name, "test_data_set_0")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(root, "test_" + name, "model.onnx"), "wb") as out:
        out.write(model.SerializeToString())

    def write(kind, i, x):
        x = np.asarray(x)
        if x.dtype.kind in "OU":
            x = x.astype(object)
        with open(os.path.join(folder, f"{kind}_{i}.pb"), "wb") as out:
            out.write(nh.from_array(x).SerializeToString())

    for i, x in enumerate(feeds.values()):
        write("input", i, x)
    for i, y in enumerate(outputs):
        write("output", i, y)


def node(name, op, inputs, outputs, version=1, domain="ai.onnx.ml", opset=18, **attrs):
    def info(name, x):
        kind = T.STRING if x.dtype.kind in "OU" else h.np_dtype_to_tensor_dtype(x.dtype)
        return h.make_tensor_value_info(name, kind, x.shape)

    names = [f"x{i}" for i in range(len(inputs))]
    made = h.make_node(op, names, [f"y{i}" for i in range(len(outputs))], domain=domain, **attrs)
    graph = h.make_graph(
        [made],
        name,
        [info(n, x) for n, x in zip(names, inputs)],
        [h.make_tensor_value_info(f"y{i}", t, None) for i, t in enumerate(outputs)],
    )
    imports = [h.make_opsetid("", opset)] + ([h.make_opsetid(domain, version)] if domain else [])
    save(name, h.make_model(graph, opset_imports=imports, ir_version=9), dict(zip(names, inputs)))


# Scores near 0 may differ by more than 1e-7: ONNX Runtime adds up floats, and its PROBIT has a short pi.
POSTS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]
X = f(13, 4)
STRINGS = np.array([["a", "b"], ["c", ""]], dtype=object)

for post in POSTS:
    for kind, labels in (("ints", dict(classlabels_ints=[5, 6, 7])), ("strings", dict(classlabels_strings=["a", "b", "c"]))):
        node(f"linear_classifier_{kind}_{post}", "LinearClassifier", [X], [T.STRING if kind == "strings" else T.INT64, T.FLOAT],
             coefficients=f(12).tolist(), intercepts=[0.1, 0.2, 0.3], post_transform=post, **labels)
    if post != "PROBIT":
        node(f"linear_classifier_one_{post}", "LinearClassifier", [X], [T.INT64, T.FLOAT],
             coefficients=f(4).tolist(), intercepts=[0.1], classlabels_ints=[5, 7], post_transform=post)
    node(f"linear_regressor_{post}", "LinearRegressor", [X], [T.FLOAT], coefficients=f(8).tolist(), targets=2, post_transform=post)
    node(f"linear_regressor_one_{post}", "LinearRegressor", [X], [T.FLOAT], coefficients=f(4).tolist(), intercepts=[0.1], post_transform=post)
big = f(700, 3).T
node("linear_classifier_many", "LinearClassifier", [f(9, 700)], [T.INT64, T.FLOAT], coefficients=big.ravel().tolist(),
     intercepts=[0.1, 0.2, 0.3], classlabels_ints=[5, 6, 7], post_transform="SOFTMAX")
node("linear_regressor_many", "LinearRegressor", [f(9, 1500)], [T.FLOAT], coefficients=f(1500).tolist(), intercepts=[0.5])

for kernel in ["LINEAR", "POLY", "RBF", "SIGMOID"]:
    common = dict(kernel_type=kernel, kernel_params=[0.3, 0.1, 3.0], rho=f(3).tolist())
    three = dict(common, support_vectors=f(24).tolist(), coefficients=f(12).tolist(), vectors_per_class=[2, 1, 3], classlabels_ints=[5, 6, 7])
    for post in POSTS[:4]:
        node(f"svm_classifier_{kernel}_{post}", "SVMClassifier", [X], [T.INT64, T.FLOAT], post_transform=post, **three)
    node(f"svm_classifier_{kernel}_likely", "SVMClassifier", [X], [T.INT64, T.FLOAT], prob_a=[-1.0, -0.5, -2.0], prob_b=[0.1, 0.0, 0.2], **three)
    two = dict(common, support_vectors=f(12).tolist(), coefficients=f(3).tolist(), rho=[0.1], vectors_per_class=[2, 1], classlabels_strings=["a", "b"])
    for post in POSTS[:2]:
        node(f"svm_classifier_two_{kernel}_{post}", "SVMClassifier", [X], [T.STRING, T.FLOAT], post_transform=post, **two)
    node(f"svm_classifier_two_{kernel}_likely", "SVMClassifier", [X], [T.STRING, T.FLOAT], prob_a=[-1.5], prob_b=[0.2], **two)
    one = dict(common, support_vectors=f(20).tolist(), coefficients=f(5).tolist(), rho=[0.1], n_supports=5)
    node(f"svm_regressor_{kernel}", "SVMRegressor", [X], [T.FLOAT], **one)
    node(f"svm_regressor_{kernel}_one_class", "SVMRegressor", [X], [T.FLOAT], one_class=1, **one)
flat = dict(kernel_type="LINEAR", kernel_params=[0.0, 0.0, 0.0])
node("svm_classifier_flat", "SVMClassifier", [X], [T.INT64, T.FLOAT], coefficients=f(12).tolist(), rho=[0.1, 0.2, 0.3], classlabels_ints=[5, 6, 7], **flat)
node("svm_regressor_flat", "SVMRegressor", [X], [T.FLOAT], coefficients=f(4).tolist(), rho=[0.1], **flat)


def trees(prefix, count, depth, modes, targets, features=4, positive=False):
    """Attributes of `count` random trees."""
    a = {k: [] for k in ["nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values", "nodes_modes", "nodes_truenodeids",
                         "nodes_falsenodeids", "nodes_missing_value_tracks_true"]}
    ids = dict(target="target_ids", **{"class": "class_ids"})[prefix]
    votes = {k: [] for k in [prefix + "_treeids", prefix + "_nodeids", ids, prefix + "_weights"]}
    for t in range(count):
        open_, next_ = [(0, 0)], 1
        while open_:
            i, d = open_.pop()
            leaf = d == depth or (d > 0 and rng.random() < 0.2)
            row = [t, i, int(rng.integers(features)), 0.0 if leaf else round(float(rng.standard_normal()) * 2) / 2,
                   "LEAF" if leaf else str(rng.choice(modes)), 0 if leaf else next_, 0 if leaf else next_ + 1, int(rng.integers(2))]
            for k, v in zip(a, row):
                a[k].append(v)
            if leaf:
                for target in targets:
                    w = float(rng.standard_normal())
                    for k, v in zip(votes, [t, i, target, abs(w) / count if positive else w]):
                        votes[k].append(v)
            else:
                open_ += [(next_, d + 1), (next_ + 1, d + 1)]
                next_ += 2
    return {**a, **votes}


# Values that trees ask for, and missing ones.
G = np.round(f(101, 4) * 2) / 2
G[rng.random(G.shape) < 0.1] = np.nan
LEQ, ALL = ["BRANCH_LEQ"], ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
for name, modes in (("leq", LEQ), ("order", ALL[:4]), ("all", ALL)):
    for x in (G, G.astype(np.float64), rng.integers(-2, 3, (20, 4))):
        node(f"tree_regressor_{name}_{x.dtype}", "TreeEnsembleRegressor", [x], [T.FLOAT], 3, n_targets=1, base_values=[0.5], **trees("target", 9, 5, modes, [0]))
        node(f"tree_classifier_{name}_{x.dtype}", "TreeEnsembleClassifier", [x], [T.INT64, T.FLOAT], 3, classlabels_int64s=[5, 6, 7],
             **trees("class", 9, 5, modes, [0, 1, 2]))
for join in ["SUM", "AVERAGE", "MIN", "MAX"]:
    node(f"tree_regressor_{join}", "TreeEnsembleRegressor", [G], [T.FLOAT], n_targets=3, aggregate_function=join, base_values=[0.5, 0.0, -1.0],
         **trees("target", 5, 4, LEQ, [0, 1, 2]))
    node(f"tree_regressor_one_{join}", "TreeEnsembleRegressor", [G], [T.FLOAT], n_targets=1, aggregate_function=join, **trees("target", 5, 4, LEQ, [0]))
for post in POSTS:
    node(f"tree_regressor_post_{post}", "TreeEnsembleRegressor", [G], [T.FLOAT], n_targets=2, post_transform=post, **trees("target", 5, 4, LEQ, [0, 1], positive=True))
    node(f"tree_regressor_post_one_{post}", "TreeEnsembleRegressor", [G], [T.FLOAT], n_targets=1, post_transform=post, **trees("target", 5, 4, LEQ, [0], positive=True))
    node(f"tree_classifier_post_{post}", "TreeEnsembleClassifier", [G], [T.STRING, T.FLOAT], classlabels_strings=["a", "b", "c"], post_transform=post,
         **trees("class", 5, 4, LEQ, [0, 1, 2], positive=True))
    if post != "PROBIT":
        for positive in (False, True):
            for base in ({}, dict(base_values=[0.1])):
                node(f"tree_classifier_two_{post}_{positive}_{len(base)}", "TreeEnsembleClassifier", [G], [T.INT64, T.FLOAT], classlabels_int64s=[0, 1],
                     post_transform=post, **base, **trees("class", 5, 4, LEQ, [0], positive=positive))
        node(f"tree_classifier_second_{post}", "TreeEnsembleClassifier", [G], [T.INT64, T.FLOAT], classlabels_int64s=[0, 1], post_transform=post,
             **trees("class", 5, 4, LEQ, [1], positive=True))
# ONNX Runtime takes 1 for LOGISTIC and 2 for SOFTMAX, the specification has it the other way round.
for post in (0, 3):
    for dtype in (np.float32, np.float64):
        splits = lambda *v: nh.from_array(np.array(v, dtype))
        node(f"tree_ensemble_{post}_{np.dtype(dtype)}", "TreeEnsemble", [G.astype(dtype)], [h.np_dtype_to_tensor_dtype(np.dtype(dtype))], 5, n_targets=2,
             post_transform=post, aggregate_function=1, nodes_splits=splits(0.5, -0.5, 1.0), nodes_featureids=[0, 1, 2], nodes_modes=nh.from_array(np.array([0, 3, 4], np.uint8)),
             nodes_truenodeids=[1, 0, 2], nodes_trueleafs=[0, 1, 1], nodes_falsenodeids=[1, 0, 3], nodes_falseleafs=[1, 1, 1], nodes_missing_value_tracks_true=[1, 0, 0],
             leaf_targetids=[0, 1, 0, 1], leaf_weights=splits(1.5, -2.0, 3.0, 0.25), tree_roots=[0, 2])

for norm in ["MAX", "L1", "L2"]:
    for x in (X, X[0], np.zeros((2, 3), np.float32), rng.integers(-5, 5, (3, 4)), X.astype(np.float64)):
        node(f"normalizer_{norm}_{x.dtype}_{x.ndim}_{len(x)}", "Normalizer", [x], [T.FLOAT], norm=norm)
for x in (X, X.astype(np.float64), rng.integers(-5, 5, (3, 4)), rng.integers(-5, 5, (3, 4)).astype(np.int32)):
    node(f"scaler_{x.dtype}", "Scaler", [x], [T.FLOAT], offset=[1.0, 2.0, 3.0, 4.0], scale=[0.5, 2.0, 1.0, -1.0])
    node(f"scaler_one_{x.dtype}", "Scaler", [x], [T.FLOAT], offset=[1.0], scale=[0.5])
node("binarizer", "Binarizer", [X], [T.FLOAT], threshold=0.3)
node("imputer_nan", "Imputer", [G], [T.FLOAT], replaced_value_float=float("nan"), imputed_value_floats=[1.0, 2.0, 3.0, 4.0])
node("imputer_one", "Imputer", [G], [T.FLOAT], replaced_value_float=0.5, imputed_value_floats=[9.0])
node("imputer_ints", "Imputer", [rng.integers(0, 3, (5, 2))], [T.INT64], replaced_value_int64=1, imputed_value_int64s=[8, 9])
node("features", "FeatureVectorizer", [X, f(13, 2), f(13, 1)], [T.FLOAT], inputdimensions=[4, 2, 1])
node("features_ints", "FeatureVectorizer", [rng.integers(0, 9, (5, 2)), rng.integers(0, 9, (5, 3))], [T.FLOAT], inputdimensions=[2, 3])
node("extractor", "ArrayFeatureExtractor", [X, np.array([0, 3, 1])], [T.FLOAT])
node("extractor_vector", "ArrayFeatureExtractor", [X[0], np.array([[0, 3]])], [T.FLOAT])
node("extractor_strings", "ArrayFeatureExtractor", [STRINGS, np.array([1])], [T.STRING])
node("one_hot_strings", "OneHotEncoder", [STRINGS], [T.FLOAT], cats_strings=["a", "c"])
node("one_hot_ints", "OneHotEncoder", [rng.integers(0, 4, (3, 2))], [T.FLOAT], cats_int64s=[1, 2, 3])
node("one_hot_floats", "OneHotEncoder", [f(3, 2)], [T.FLOAT], cats_int64s=[0, 1, -1])
node("mapper", "CategoryMapper", [STRINGS], [T.INT64], cats_strings=["a", "b"], cats_int64s=[7, 8], default_int64=-3)
node("mapper_back", "CategoryMapper", [np.array([7, 9])], [T.STRING], cats_strings=["a", "b"], cats_int64s=[7, 8])
node("labels_1", "LabelEncoder", [STRINGS], [T.INT64], classes_strings=["a", "b"])
node("labels_1_back", "LabelEncoder", [np.array([1, 0, 4])], [T.STRING], classes_strings=["a", "b"])
node("labels_2", "LabelEncoder", [STRINGS], [T.FLOAT], 2, keys_strings=["a", "b"], values_floats=[0.5, 1.5])
# NaN is left out: the specification looks it up, ONNX Runtime does so from version 4 on only.
node("labels_2_floats", "LabelEncoder", [np.array([1.0, -0.0, 2.0], np.float32)], [T.STRING], 2, keys_floats=[1.0, 0.0], values_strings=["x", "y"])
node("labels_4", "LabelEncoder", [np.array([1.0, np.nan, 2.0])], [T.INT64], 4, keys_tensor=nh.from_array(np.array([1.0, np.nan])), values_int64s=[4, 5])

for equation, shapes in {"ij,jk->ik": [(3, 4), (4, 5)], "bhid,bhjd->bhij": [(2, 3, 4, 5), (2, 3, 6, 5)], "bid,hdk->bhik": [(2, 3, 4), (5, 4, 6)], "...ii->...i": [(2, 3, 3)],
                         "...ij,...jk": [(2, 1, 3, 4), (5, 4, 2)], "ij,jk,kl": [(2, 3), (3, 4), (4, 5)], "a,ab,bc,c->": [(2,), (2, 3), (3, 4), (4,)], "ij,ij->i": [(3, 4), (3, 4)],
                         "abcd,cdbe->ae": [(2, 3, 4, 5), (4, 5, 3, 2)], "i,j->ji": [(3,), (4,)], "bi,bj,bk->ijk": [(2, 3), (2, 4), (2, 5)]}.items():
    node("einsum_" + "".join(c if c.isalpha() else "_" for c in equation), "Einsum", [f(*s) for s in shapes], [T.FLOAT], domain="", equation=equation)
for mode in ["TF", "IDF", "TFIDF"]:
    for skip in (0, 2):
        node(f"tfidf_{mode}_{skip}", "TfIdfVectorizer", [rng.integers(2, 6, (3, 9))], [T.FLOAT], domain="", mode=mode, max_skip_count=skip, min_gram_length=1, max_gram_length=3,
             ngram_counts=[0, 4, 8], ngram_indexes=[0, 1, 2, 3, 4, 5, 6], pool_int64s=[2, 3, 4, 5, 2, 3, 4, 5, 3, 4, 2], weights=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
node("cast_from_string", "Cast", [np.array(["1e-5", "+INF", "nan", "3.25"], object)], [T.FLOAT], domain="", to=T.FLOAT)
node("cast_from_string_int", "Cast", [np.array(["-12", "7"], object)], [T.INT64], domain="", to=T.INT64)
node("cast_to_string", "Cast", [np.array([0.25, 1.0, -3.5, np.nan, np.inf], np.float32)], [T.STRING], domain="", to=T.STRING)
node("cast_to_string_int", "Cast", [np.array([5, -7])], [T.STRING], domain="", to=T.STRING)
node("normalize_strings", "StringNormalizer", [np.array(["Monday", "tuesday", "\u00c4rger"], object)], [T.STRING], domain="", stopwords=["monday"], case_change_action="UPPER")
node("unique_strings", "Unique", [STRINGS], [T.STRING, T.INT64, T.INT64, T.INT64], domain="")
node("split_strings", "StringSplit", [np.array(["a,b,,c", "d", ",x "], object)], [T.STRING, T.INT64], domain="", opset=20, delimiter=",")
node("split_blanks", "StringSplit", [np.array(["  a b   c ", "d"], object)], [T.STRING, T.INT64], domain="", opset=20, maxsplit=1)
node("regex", "RegexFullMatch", [np.array(["www.google.com", "a1", "\u00e4"], object)], [T.BOOL], domain="", opset=20, pattern=r"www\.[\w.-]+\.\bcom\b|\w\d")
for op, rest in {"Concat": dict(axis=0), "Transpose": {}, "Identity": {}}.items():
    node("strings_" + op, op, [STRINGS] * (2 if op == "Concat" else 1), [T.STRING], domain="", **rest)
node("strings_Where", "Where", [STRINGS == "a", STRINGS, np.array("x", object)], [T.STRING], domain="")
node("strings_Gather", "Gather", [STRINGS, np.array([1, 0])], [T.STRING], domain="", axis=1)
node("strings_Expand", "Expand", [STRINGS, np.array([2, 2, 2])], [T.STRING], domain="")
node("strings_Tile", "Tile", [STRINGS, np.array([2, 1])], [T.STRING], domain="")
node("strings_Slice", "Slice", [STRINGS, np.array([0]), np.array([1])], [T.STRING], domain="")
node("strings_Reshape", "Reshape", [STRINGS, np.array([-1])], [T.STRING], domain="")
node("strings_Squeeze", "Squeeze", [STRINGS[:1], np.array([0])], [T.STRING], domain="")
node("strings_Unsqueeze", "Unsqueeze", [STRINGS, np.array([0])], [T.STRING], domain="")
node("strings_Compress", "Compress", [STRINGS, np.array([True, False])], [T.STRING], domain="", axis=0)


def pipelines():
    """Exported scikit-learn pipelines."""
    try:
        from skl2onnx import to_onnx
        from sklearn import compose, datasets, ensemble, linear_model, neighbors, pipeline, preprocessing, svm, tree
    except ImportError:
        return print("left out pipelines: scikit-learn or skl2onnx is missing")
    x, y = datasets.load_iris(return_X_y=True)
    x = x.astype(np.float32)
    kinds = {"iris": y, "binary": (y > 0).astype(np.int64), "names": np.array(["setosa", "versicolor", "virginica"])[y]}
    for target, y in kinds.items():
        for model in [
            ensemble.RandomForestClassifier(30, random_state=0),
            ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0),
            ensemble.HistGradientBoostingClassifier(max_iter=10, random_state=0),
            ensemble.ExtraTreesClassifier(10, random_state=0),
            ensemble.AdaBoostClassifier(n_estimators=5, random_state=0),
            tree.DecisionTreeClassifier(random_state=0),
            linear_model.LogisticRegression(max_iter=500),
            linear_model.SGDClassifier(loss="log_loss", random_state=0),
            svm.SVC(random_state=0),
            svm.SVC(kernel="poly", probability=True, random_state=0),
            svm.LinearSVC(random_state=0),
            neighbors.KNeighborsClassifier(3),
            pipeline.make_pipeline(preprocessing.StandardScaler(), preprocessing.Normalizer(), linear_model.LogisticRegression()),
        ]:
            model.fit(x, y)
            name = type(model[-1] if isinstance(model, pipeline.Pipeline) else model).__name__ + getattr(model, "kernel", "")
            name += "_scaled" if isinstance(model, pipeline.Pipeline) else ""
            options = {"zipmap": False}
            try:
                proto = to_onnx(model, x[:1], options={id(model): options}, target_opset={"": 18, "ai.onnx.ml": 3})
            except Exception as e:
                print("left out", target, name, str(e).splitlines()[0][:120])
                continue
            save(f"skl_{target}_{name}", proto, {"X": x[::7]})
    for model in [
        ensemble.RandomForestRegressor(30, random_state=0),
        ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0),
        ensemble.IsolationForest(n_estimators=10, random_state=0),
        linear_model.LinearRegression(),
        svm.SVR(),
        svm.OneClassSVM(),
    ]:
        model.fit(x, kinds["iris"])
        try:
            proto = to_onnx(model, x[:1], target_opset={"": 18, "ai.onnx.ml": 3})
        except Exception as e:
            print("left out", type(model).__name__, str(e).splitlines()[0][:120])
            continue
        save(f"skl_{type(model).__name__}", proto, {"X": x[::7]})
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    words = np.array(["a", "b", "c"], object)[rng.integers(0, 3, len(x))].reshape(-1, 1)
    import pandas
    frame = pandas.DataFrame({"n0": x[:, 0], "n1": x[:, 1], "w": words[:, 0]})
    mixed = compose.ColumnTransformer([("n", preprocessing.StandardScaler(), ["n0", "n1"]), ("w", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["w"])])
    model = pipeline.make_pipeline(mixed, linear_model.LogisticRegression()).fit(frame, kinds["names"])
    one = FloatTensorType([None, 1])
    proto = to_onnx(model, initial_types=[("n0", one), ("n1", one), ("w", StringTensorType([None, 1]))], options={id(model): {"zipmap": False}}, target_opset={"": 18, "ai.onnx.ml": 3})
    save("skl_mixed", proto, {"n0": x[:, :1], "n1": x[:, 1:2], "w": words})


pipelines()
