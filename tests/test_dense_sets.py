"""Dense sets: in memory, in files and archives; frames; batches from a seed."""

import numpy as np
import pytest
from PIL import Image

from keras_kssl.evaluation.dense import DenseSet, open_set
from keras_kssl.evaluation.dense import frames as frames_of
from keras_kssl.evaluation.dense.frames import Placement
from keras_kssl.evaluation.dense.opening import open_pair
from keras_kssl.evaluation.dense.training import Batches, Plan
from keras_kssl.evaluation.dense.voc import CLASSES
from tests.photos import encoded, picture
from tests.shapes import box_of, shapes

pytestmark = pytest.mark.any_backend

IMAGES, MASKS, OBJECTS, DEPTHS = shapes(5, size=24, seed=3, most=2)
BY_TASK = {"segmentation": MASKS, "detection": OBJECTS, "depth": DEPTHS}


def one_object(box, label=0, **more):
    return {"boxes": [box], "labels": [label], **more}


# In memory.


@pytest.mark.parametrize("task", BY_TASK)
def test_sets_in_memory_give_what_they_were_given(task):
    made = open_set((list(IMAGES), BY_TASK[task]), task)
    assert len(made) == 5
    image, target = made.read(3)
    np.testing.assert_array_equal(image, IMAGES[3])
    if task == "detection":
        np.testing.assert_array_equal(target["boxes"], OBJECTS[3]["boxes"])
        assert target["labels"].tolist() == OBJECTS[3]["labels"].tolist()
        assert not target["difficult"].any()
    else:
        np.testing.assert_allclose(target, BY_TASK[task][3], rtol=1e-6)
    expected = {"segmentation": 3, "detection": 2, "depth": None}
    assert made.num_classes == expected[task]
    assert open_set(made, task) is made


def test_images_may_have_sizes_of_their_own_and_void_is_no_class():
    masks = [np.full((5, 7), 255), np.full((9, 4), 2)]
    images = [np.zeros((5, 7, 1), np.float64), np.zeros((9, 4, 1), np.uint8)]
    made = DenseSet("segmentation", images, masks)
    assert made.num_classes == 3
    assert [made.read(i)[0].dtype for i in (0, 1)] == [np.float32, np.uint8]
    assert [made.counts(i) for i in (0, 1)] == [False, True]


IMAGE = np.zeros((6, 8, 3), np.uint8)
MASK = np.zeros((6, 8), np.uint8)
WRONG = [
    ("segmentation", IMAGE, None, "`masks` must be given for segmentation"),
    ("depth", IMAGE, None, "`depths` must be given for depth"),
    ("segmentation", IMAGE[..., 0], MASK, r"3 axes.*Received: shape \(6, 8\)"),
    ("segmentation", IMAGE.astype(int), MASK, "uint8 in 0 ... 255 or float"),
    ("segmentation", IMAGE + np.nan, MASK, r"lie in \[0, 1\].*nan"),
    ("segmentation", IMAGE + 2.0, MASK, r"lie in \[0, 1\].*from 2 to 2"),
    ("segmentation", IMAGE, MASK[:5], r"size of their image, 6 x 8.*shape \(5, 8\)"),
    ("segmentation", IMAGE, MASK + 0.5, "masks must be integers.*float"),
    ("segmentation", IMAGE, MASK.astype(int) - 3, r"from 0 to .*\[-3\] in 48 pixels"),
    (
        "segmentation",
        IMAGE,
        MASK.astype(int) + 256,
        "`classes` must be at most 255.*257",
    ),
    ("depth", IMAGE, MASK, "floats in metres.*uint8.*millimetres"),
    ("depth", IMAGE, MASK + np.nan, "finite.*NaN or infinity in 48 pixels"),
    ("depth", IMAGE, MASK - 1.0, "at least 0.*Received: -1"),
    ("depth", IMAGE, MASK[:, :7] + 1.0, r"6 x 8 pixels.*\(6, 7\)"),
    ("detection", IMAGE, [1, 2], "dictionary with `boxes` and `labels`.*list"),
    ("detection", IMAGE, {"boxes": []}, r"Received: \['boxes'\]"),
    ("detection", IMAGE, one_object([0, 0, 1]), r"\(k, 4\).*Received: shape \(1, 3\)"),
    ("detection", IMAGE, one_object([3, 0, 3, 5]), "left before right"),
    ("detection", IMAGE, one_object([0, 5, 3, 4]), "top above bottom"),
    ("detection", IMAGE, one_object([0, 0, 9.5, 3]), "within 8 x 6 pixels"),
    ("detection", IMAGE, one_object([0, 0, np.nan, 3]), "boxes must be left"),
    ("detection", IMAGE, one_object([0, 0, 1, 1], -1), r"from 0 to .*\[-1\]"),
    ("detection", IMAGE, one_object([0, 0, 1, 1], 0.5), "integers.*float"),
    (
        "detection",
        IMAGE,
        one_object([0, 0, 1, 1], difficult=[True, False]),
        "`difficult` must have one entry for each of the 1 boxes",
    ),
]


@pytest.mark.parametrize(("task", "image", "target", "message"), WRONG)
def test_wrong_examples_are_refused_at_once_and_named(task, image, target, message):
    good = {"segmentation": MASK, "depth": MASK + 1.0}.get(
        task, one_object([0, 0, 1, 1])
    )
    targets = None if target is None else [good, target]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        DenseSet(task, [IMAGE, image], targets, name="mine")
    assert str(caught.value).startswith("mine")
    assert "\n" not in str(caught.value)
    if target is not None and "at most 255" not in message:
        assert "image 1" in str(caught.value)


def test_numbers_of_images_and_targets_and_channels_must_agree():
    with pytest.raises(ValueError, match=r"2 images, 1 masks"):
        open_set(([IMAGE, IMAGE], [MASK]), "segmentation")
    with pytest.raises(ValueError, match=r"0 images, 0 masks"):
        open_set(([], []), "segmentation")
    with pytest.raises(ValueError, match=r"must have 3 channels"):
        open_set(([IMAGE, IMAGE[..., :1]], [MASK, MASK]), "segmentation")
    with pytest.raises(ValueError, match=r"from 0 to 0"):
        DenseSet("segmentation", [IMAGE], [MASK + 1], class_names=["ground"])


def test_boxes_drawn_a_little_over_the_edge_are_cut_off():
    made = open_set(([IMAGE], [one_object([-1, 0, 8.5, 6])]), "detection")
    assert made.read(0)[1]["boxes"].tolist() == [[0, 0, 8, 6]]


def test_images_without_objects_are_good():
    made = open_set(
        ([IMAGE, IMAGE], [one_object([0, 0, 1, 1]), {"boxes": [], "labels": []}]),
        "detection",
    )
    assert made.read(1)[1]["boxes"].shape == (0, 4)
    assert not made.counts(1)


def test_unknown_sources_are_told_what_is_known():
    with pytest.raises(ValueError, match=r"Did you mean 'voc:DIR\[:SPLIT\]'"):
        open_set("vox:there", "segmentation")
    with pytest.raises(ValueError, match=r"Did you mean 'npz:set.npz'"):
        open_set("set.npz", "segmentation")
    with pytest.raises(TypeError, match=r"a tuple"):
        open_set(3, "segmentation")
    with pytest.raises(ValueError, match=r"Did you mean 'segmentation'"):
        open_set((IMAGES, MASKS), "segmentations")
    with pytest.raises(ValueError, match=r"a set for depth"):
        open_set(open_set((IMAGES, MASKS), "segmentation"), "depth")
    for text in ("voc:gone", "folder:gone", "npz:gone.npz"):
        with pytest.raises(FileNotFoundError, match=r"gone"):
            open_set(text, "segmentation")


def test_pairs_of_sets_that_do_not_fit_are_refused():
    def open_two(train, test, task="segmentation"):
        return open_pair("here", train, test, task)

    full = (IMAGES, MASKS)
    open_two(full, (IMAGES, np.minimum(MASKS, 1)))
    with pytest.raises(ValueError, match=r"2 without names. Received: 3 without names"):
        open_two((IMAGES, np.minimum(MASKS, 1)), full)
    named = [
        DenseSet("segmentation", *full, class_names=names) for names in ("abc", "acb")
    ]
    open_two(named[0], full)
    with pytest.raises(ValueError, match=r"a, b, c. Received: a, c, b"):
        open_two(*named)
    with pytest.raises(
        ValueError, match=r"as many channels as `train`, 3. Received: 1"
    ):
        open_two(full, (IMAGES[..., :1], MASKS))
    with pytest.raises(ValueError, match=r"`test` must have masks.*counts"):
        open_two(full, (IMAGES, np.full_like(MASKS, 255)))
    with pytest.raises(ValueError, match=r"`train` must have depths.*counts"):
        open_two((IMAGES, 0.0 * DEPTHS), (IMAGES, DEPTHS), "depth")
    hard = [{**o, "difficult": np.ones(len(o["labels"]), bool)} for o in OBJECTS]
    with pytest.raises(ValueError, match=r"`test` must have objects.*difficult"):
        open_two((IMAGES, OBJECTS), (IMAGES, hard), "detection")


# Archives.


def boxes_as_arrays(objects):
    return {
        "boxes": np.concatenate([one["boxes"] for one in objects]),
        "box_labels": np.concatenate([one["labels"] for one in objects]),
        "box_offsets": np.cumsum([0, *(len(one["labels"]) for one in objects)]),
    }


def test_archives_hold_masks_depths_and_boxes(tmp_path):
    arrays = {"masks": MASKS, "depths": DEPTHS, **boxes_as_arrays(OBJECTS)}
    path = tmp_path / "all.npz"
    np.savez(path, images=IMAGES, class_names=["a", "b", "c"], **arrays)
    for task, targets in BY_TASK.items():
        made = open_set(f"npz:{path}", task)
        for index in range(5):
            image, target = made.read(index)
            np.testing.assert_array_equal(image, IMAGES[index])
            if task == "detection":
                for name in ("boxes", "labels"):
                    np.testing.assert_array_equal(target[name], OBJECTS[index][name])
            else:
                np.testing.assert_allclose(target, targets[index], rtol=1e-6)
    assert open_set(f"npz:{path}", "segmentation").class_names == ["a", "b", "c"]


def test_archives_may_hold_encoded_images_and_difficult_boxes(tmp_path):
    files = [encoded(image, "PNG") for image in IMAGES]
    path = tmp_path / "encoded.npz"
    arrays = boxes_as_arrays(OBJECTS)
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        difficult=arrays["box_labels"] == 1,
        **arrays,
    )
    made = open_set(f"npz:{path}", "detection")
    image, target = made.read(4)
    np.testing.assert_array_equal(image, IMAGES[4])
    np.testing.assert_array_equal(target["difficult"], OBJECTS[4]["labels"] == 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box_offsets": None}, "without `box_offsets`"),
        ({"boxes": None, "box_labels": None}, "without `boxes`, `box_labels`"),
        ({"box_offsets": np.arange(6)}, "`box_offsets` must be non-decreasing"),
        ({"box_offsets": np.arange(4)}, "integers, 6, from 0"),
        ({"box_labels": np.zeros(2, int)}, "`box_labels` must be one for each"),
        ({"images": None}, "must have an array `images`"),
    ],
)
def test_archives_that_lack_something_are_refused(tmp_path, change, message):
    arrays = {"images": IMAGES, **boxes_as_arrays(OBJECTS), **change}
    path = tmp_path / "lacking.npz"
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(ValueError, match=message):
        open_set(f"npz:{path}", "detection")


# Folders.


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        Image.fromarray(content).save(path)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "mine"
    for index in range(3):
        write(root / "images" / f"{index}.jpg", encoded(picture(20 + index, 30)))
        write(
            root / "masks" / f"{index}.png", np.full((20 + index, 30), index, "uint8")
        )
    write(root / "classes.txt", "ground\ntree\n\nhouse\n")
    return root


def test_folders_pair_photos_with_masks_of_the_same_name(folder):
    made = open_set(f"folder:{folder}", "segmentation")
    assert made.class_names == ["ground", "tree", "house"]
    image, mask = made.read(2)
    assert image.shape == (22, 30, 3)
    assert (mask == 2).all()
    assert made.name_of(2) == "2.jpg"


def test_depths_are_metres_in_npy_and_millimetres_in_16_bit_png(folder):
    metres = np.linspace(0.5, 9.5, 600).reshape(20, 30).astype(np.float32)
    write(folder / "depths" / "0.npy", metres)
    write(folder / "depths" / "1.png", np.full((21, 30), 2500, np.uint16))
    write(folder / "depths" / "2.tif", np.full((22, 30), 1.5, np.float32))
    made = open_set(f"folder:{folder}", "depth")
    np.testing.assert_array_equal(made.read(0)[1], metres)
    assert (made.read(1)[1] == 2.5).all()
    assert (made.read(2)[1] == 1.5).all()


def test_folders_that_lack_something_are_refused(folder):
    source = f"folder:{folder}"
    with pytest.raises(FileNotFoundError, match=r"depths.*not there"):
        open_set(source, "depth")
    with pytest.raises(ValueError, match=r"Boxes come from voc:DIR or npz:FILE.npz"):
        open_set(source, "detection")
    (folder / "masks" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"none for 1 of 3 images.*'1\.jpg'"):
        open_set(source, "segmentation")
    write(folder / "masks" / "1.png", np.zeros((20, 30), "uint8"))
    with pytest.raises(ValueError, match=r"21 x 30 pixels for '1\.jpg'.*20 x 30"):
        open_set(source, "segmentation")
    (folder / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"'classes\.txt'"):
        open_set(source, "segmentation")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("masks/1.png", np.full((21, 30), 7, "uint8"), r"1\.jpg.*\[7\] in 630 pixels"),
        ("masks/1.png", np.zeros((21, 30, 3), "uint8"), r"1\.png.*mode RGB"),
        ("images/1.jpg", encoded(picture(21, 30))[:-60], r"1\.jpg"),
    ],
)
def test_what_is_wrong_behind_a_good_header_is_named_when_read(
    folder, name, content, message
):
    write(folder / name, content)
    made = open_set(f"folder:{folder}", "segmentation")
    with pytest.raises(ValueError, match=message):
        made.read(1)


def test_files_without_a_good_header_are_named_at_once(folder):
    write(folder / "images" / "1.jpg", b"this is no image")
    with pytest.raises(ValueError, match=r"1\.jpg'?: no image of a known format"):
        open_set(f"folder:{folder}", "segmentation")


def test_eight_bits_are_too_few_for_depths(folder):
    for index in range(3):
        write(folder / "depths" / f"{index}.png", np.full((20 + index, 30), 9, "uint8"))
    with pytest.raises(ValueError, match=r"mode L, not 16-bit millimetres"):
        open_set(f"folder:{folder}", "depth").read(0)


# VOC.

ANNOTATION = """<annotation><filename>{name}.jpg</filename>
<object><name>dog</name><difficult>0</difficult>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
<bndbox><xmax>10</xmax><xmin>1</xmin><ymax>20</ymax><ymin>3</ymin></bndbox></object>
<object><name>person</name><difficult>1</difficult>
<bndbox><xmin>5.5</xmin><ymin>1</ymin><xmax>30</xmax><ymax>7</ymax></bndbox></object>
<object><name>cat</name>
<bndbox><xmin>5</xmin><ymin>1</ymin><xmax>6</xmax><ymax>7</ymax></bndbox></object>
</annotation>"""


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("2007_000001", "2007_000002"):
        write(root / "JPEGImages" / f"{name}.jpg", encoded(picture(24, 30)))
        write(root / "Annotations" / f"{name}.xml", ANNOTATION.format(name=name))
    masks = {"SegmentationClass": "2007_000001", "SegmentationClassAug": "2007_000002"}
    for kind, name in masks.items():
        mask = np.zeros((24, 30), np.uint8)
        mask[3:9], mask[9] = 12, 255
        image = Image.fromarray(mask, "L" if kind.endswith("Aug") else None)
        if kind == "SegmentationClass":
            image.putpalette(list(range(256)) * 3)
        path = root / kind / f"{name}.png"
        path.parent.mkdir(parents=True)
        image.save(path)
    for kind in ("Segmentation", "Main"):
        lists = root / "ImageSets" / kind
        write(lists / "train.txt", "2007_000001\n2007_000002\n")
        write(lists / "val.txt", "2007_000002\r\n")
    return root


def test_voc_masks_are_numbers_of_the_palette_and_255_is_void(voc):
    made = open_set(f"voc:{voc}", "segmentation")
    assert (len(made), made.num_classes) == (2, 21)
    assert made.class_names[0] == "background"
    assert made.class_names[12] == "dog"
    for index in range(2):
        image, mask = made.read(index)
        assert image.shape == (24, 30, 3)
        assert np.unique(mask[:3]).tolist() == [0]
        assert np.unique(mask[3:9]).tolist() == [12]
        assert np.unique(mask[9]).tolist() == [255]


def test_voc_boxes_are_turned_from_pixels_into_edges(voc):
    made = open_set(f"voc:{voc}:val", "detection")
    assert len(made) == 1
    objects = made.read(0)[1]
    expected = [[0, 2, 10, 20], [4.5, 0, 30, 7], [4, 0, 6, 7]]
    assert objects["boxes"].tolist() == expected
    names = [CLASSES[label] for label in objects["labels"]]
    assert names == ["dog", "person", "cat"]
    assert objects["difficult"].tolist() == [False, True, False]
    assert made.class_names == list(CLASSES)
    assert list(CLASSES) == sorted(CLASSES)
    assert len(CLASSES) == 20


def test_voc_is_found_below_its_devkit_and_may_have_other_classes(voc):
    assert len(open_set(f"voc:{voc.parent}:val", "segmentation")) == 1
    assert len(open_set(f"voc:{voc.parent.parent}", "segmentation")) == 2
    write(voc / "classes.txt", "cat\nperson\ndog\n")
    objects = open_set(f"voc:{voc}", "detection").read(0)[1]
    assert objects["labels"].tolist() == [2, 1, 0]
    assert open_set(f"voc:{voc}", "segmentation").num_classes == 4


def test_voc_that_lacks_something_is_refused(voc):
    with pytest.raises(ValueError, match=r"'train', 'val'.*split='trainval'"):
        open_set(f"voc:{voc}:trainval", "segmentation")
    with pytest.raises(ValueError, match=r"segmentation or detection. Received: depth"):
        open_set(f"voc:{voc}", "depth")
    with pytest.raises(FileNotFoundError, match=r"must hold `ImageSets`"):
        open_set(f"voc:{voc / 'JPEGImages'}", "segmentation")
    write(voc / "ImageSets" / "Main" / "cat_train.txt", "2007_000001 -1\n")
    with pytest.raises(ValueError, match=r"name of an image.*'2007_000001 -1'"):
        open_set(f"voc:{voc}:cat_train", "detection")
    (voc / "SegmentationClassAug" / "2007_000002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 missing.*2007_000002\.png"):
        open_set(f"voc:{voc}", "segmentation")
    (voc / "Annotations" / "2007_000001.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 missing.*2007_000001\.xml"):
        open_set(f"voc:{voc}", "detection")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("<name>cat", "<name>unicorn", "known classes. Received: 'unicorn'"),
        ("<xmax>30</xmax>", "<xmax>wide</xmax>", "numbers `xmin`"),
        ("<xmax>30</xmax>", "", "numbers `xmin`"),
        ("<xmax>30</xmax>", "<xmax>nan</xmax>", "boxes must be left"),
        ("<xmax>30</xmax>", "<xmax>40</xmax>", "within 30 x 24 pixels"),
        ("</annotation>", "", "annotation must be an XML file"),
        ("annotation>", "other>", "an `annotation` of VOC"),
        (
            "<annotation>",
            '<!DOCTYPE a [<!ENTITY b "b">]><annotation>',
            "without declarations",
        ),
    ],
)
def test_wrong_annotations_are_refused_at_once_and_named(voc, before, after, message):
    path = voc / "Annotations" / "2007_000002.xml"
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(ValueError, match=message) as caught:
        open_set(f"voc:{voc}", "detection")
    assert "2007_000002" in str(caught.value)
    assert "\n" not in str(caught.value)


# Frames.


def test_whole_images_are_shrunk_into_a_frame_and_never_enlarged():
    assert frames_of.fitted((480, 640, 3), (240, 320)) == Placement(240, 320)
    assert frames_of.fitted((300, 100, 3), (150, 150)) == Placement(150, 50)
    assert frames_of.fitted((31, 45, 3), (64, 64)) == Placement(31, 45)
    assert frames_of.fitted((1, 1000, 3), (10, 10)) == Placement(1, 10)


def test_draws_reach_all_scales_places_and_both_sides():
    generator = np.random.default_rng(0)
    shape, frame = (40, 60, 3), (50, 50)
    draws = [frames_of.drawn(generator, shape, frame, (0.5, 2.0)) for _ in range(2000)]
    heights = np.array([draw.height for draw in draws])
    # Fitted to the frame the image is 33 x 50.
    assert (heights.min(), heights.max()) == (17, 67)
    assert abs(np.mean(heights) - 1.25 * 33.3) < 1.0
    assert abs(np.mean([draw.flip for draw in draws]) - 0.5) < 0.05
    for draw in draws:
        for place, length, side in (
            (draw.top, draw.height, 50),
            (draw.left, draw.width, 50),
        ):
            assert min(0, side - length) <= place <= max(0, side - length)
    wide = [draw.left / (50 - draw.width) for draw in draws if draw.width > 80]
    assert abs(np.mean(wide) - 0.5) < 0.05
    assert min(wide) < 0.05
    assert max(wide) > 0.95


def painted(scale=1):
    """An image of one bright rectangle, its mask, its depth and its box."""
    mask = np.zeros((20, 30), np.uint8)
    mask[4:12, 6:20] = 1
    box = np.array([box_of(mask == 1)], np.float32)
    image = np.repeat((0.2 + 0.6 * mask)[..., np.newaxis], 2, axis=-1)
    objects = {"boxes": box, "labels": np.array([0]), "difficult": np.array([False])}
    return image.astype(np.float32), mask, mask * np.float32(3.0), objects


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    "place", [(40, 60, 0, 0), (20, 30, 5, 7), (40, 60, -9, -13), (10, 15, 3, 20)]
)
def test_image_mask_depth_and_boxes_move_together(place, flip):
    placement, frame = Placement(*place, flip), (33, 47)
    image, mask, depth, objects = painted()
    image = frames_of.place_image(image, placement, frame)
    mask = frames_of.place_mask(mask, placement, frame)
    depth = frames_of.place_depth(depth, placement, frame)
    (box,) = frames_of.place_objects(objects, (20, 30), placement, frame)["boxes"]
    assert image.shape == (33, 47, 2)
    assert box.tolist() == list(box_of(mask == 1))
    np.testing.assert_array_equal(depth == 3.0, mask == 1)
    np.testing.assert_array_equal(image[..., 0] > 0.5, mask == 1)
    np.testing.assert_array_equal(image[..., 0] == 0.5, mask == 255)
    expected = np.zeros(frame, bool)
    height, width, top, left = place
    expected[max(0, top) : top + height, max(0, left) : left + width] = True
    np.testing.assert_array_equal(mask != 255, expected)


def test_mirroring_is_done_before_the_image_is_placed():
    image = np.arange(12, dtype=np.float32).reshape(1, 12, 1) / 12
    placed = frames_of.place_image(image, Placement(1, 12, 0, -2, True), (1, 5))
    np.testing.assert_array_equal(placed[0, :, 0], image[0, ::-1, 0][2:7])


def test_objects_cut_in_half_become_difficult_and_lost_ones_are_left_out():
    boxes = np.array([[0, 0, 4, 4], [4, 0, 12, 4], [20, 0, 24, 4]], np.float32)
    objects = {
        "boxes": boxes,
        "labels": np.arange(3),
        "difficult": np.array([False, False, False]),
    }
    placed = frames_of.place_objects(objects, (30, 30), Placement(30, 30), (10, 7))
    assert placed["boxes"].tolist() == [[0, 0, 4, 4], [4, 0, 7, 4]]
    assert placed["labels"].tolist() == [0, 1]
    assert placed["difficult"].tolist() == [False, True]


def test_what_a_frame_says_is_taken_back_to_the_image():
    shape, frame = (60, 90, 3), (33, 33)
    placement = frames_of.fitted(shape, frame)
    assert (placement.height, placement.width) == (22, 33)
    box = np.array([[9.0, 6.0, 45.0, 60.0]])
    objects = {"boxes": box, "labels": np.zeros(1), "difficult": np.zeros(1, bool)}
    placed = frames_of.place_objects(objects, shape, placement, frame)["boxes"]
    back = frames_of.take_boxes_back(placed, shape, placement)
    np.testing.assert_allclose(back, box, rtol=1e-12)
    rows = np.linspace(0, 1, 60)[:, np.newaxis, np.newaxis] * np.ones((1, 90, 2))
    laid = np.full((33, 33, 2), 9.0, np.float32)
    laid[:22] = frames_of.resize(rows.astype(np.float32), 22, 33)
    values = frames_of.take_map_back(laid, shape, placement)
    np.testing.assert_allclose(values[3:-3], rows[3:-3], atol=0.01)


def test_bytes_and_floats_are_resized_alike():
    image = picture(31, 45)
    found = [
        frames_of.place_image(x, Placement(17, 60), (64, 64))
        for x in (image, (image / 255).astype(np.float32))
    ]
    np.testing.assert_allclose(*found, atol=1 / 255)


# Batches.


def plan(**changes):
    settings = {"epochs": 3, "batch_size": 4, "learning_rate": 0.1, "size": 24}
    return Plan.checked("here", **{**settings, "seed": 0, "frozen": False, **changes})


def numbered(count=10):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 3, 3, 1), np.uint8
    )
    return open_set((images, np.zeros((count, 3, 3), np.uint8)), "segmentation")


def keep(generator, image, mask):
    return image[0, 0], generator.random(3)


def test_batches_are_a_function_of_seed_and_step_alone():
    first, second, other = (
        Batches(numbered(), keep, plan(seed=seed)) for seed in (5, 5, 6)
    )
    forward = [first[step] for step in range(len(first))]
    backward = [second[step] for step in reversed(range(len(second)))][::-1]
    for a, b in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    assert not np.array_equal(forward[0][0], other[0][0])
    assert not np.array_equal(forward[0][1], other[0][1])


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own():
    batches = Batches(numbered(), keep, plan())
    assert len(batches) == 8
    shown = np.concatenate([batches[step][0][:, 0] for step in range(8)])
    epochs = shown[:30].reshape(3, 10)
    assert (np.sort(epochs) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 3
    draws = np.concatenate([batches[step][1] for step in range(8)])
    assert len(np.unique(draws)) == draws.size


def test_a_batch_may_be_larger_than_the_set():
    batches = Batches(numbered(3), keep, plan(batch_size=8, epochs=2))
    assert len(batches) == 1
    assert sorted(batches[0][0][:6, 0]) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "`epochs` must be an integer of at least 1"),
        ({"batch_size": 2.5}, "`batch_size` must be an integer"),
        ({"learning_rate": 0}, "`learning_rate` must be a finite number above 0"),
        ({"size": (1, 2, 3)}, "`size` must be one integer or"),
        ({"size": 0}, "`size` must be an integer of at least 1"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"frozen": "no"}, "`frozen` must be True or False"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        plan(**change)
