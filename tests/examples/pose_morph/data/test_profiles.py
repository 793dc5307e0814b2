"""Every layout is found out by itself, and joints land where the drawn ones are."""

import pickle
import shutil

import lmdb
import pytest
import torch
from PIL import Image

from examples.pose_morph.data import lmdb_store
from examples.pose_morph.data.pose_data import DataError, PoseData
from examples.pose_morph.data.profiles import find_profile, read_data
from tests.examples.pose_morph.conftest import (
    WRIST,
    WRITERS,
    person_with_marks,
    write_cfld,
    write_frames,
    write_gfla,
    write_nted,
    write_people,
    write_single,
    write_table,
    write_video,
)

SIZE = (64, 48)
HEADER = "name:keypoints_y:keypoints_x\n"


def assert_marks_are_at_the_wrists(data: PoseData, tolerance: float = 0.3) -> None:
    for picture, keypoints in (data[number] for number in range(len(data))):
        r, g, b = picture.float()
        red = ((r - g).clamp(min=0) * (r - b).clamp(min=0)).clamp(min=2e4) - 2e4
        y, x = torch.meshgrid(*(torch.arange(side) for side in red.shape), indexing="ij")
        centre = torch.stack([(red * x).sum(), (red * y).sum()]) / red.sum()
        assert (centre - keypoints[WRIST]).abs().max() < tolerance


@pytest.mark.parametrize("phase", ["train", "test"])
@pytest.mark.parametrize("layout", [layout for layout in WRITERS if layout != "patn"])  # nobody is marked there
def test_a_layout_is_found_and_its_joints_lie_on_the_body(root, layout, phase):
    name = layout.partition(",")[0]
    assert find_profile(root, phase) == name
    found, named = read_data(root, phase, SIZE), read_data(root, phase, SIZE, name)
    assert found.names == named.names
    assert torch.equal(found.pairs, named.pairs)
    assert found.paired == (name != "single")
    assert_marks_are_at_the_wrists(found, 0.6 if "video" in layout else 0.3)  # colours of a video are coarse


def test_patn_is_found(people):
    assert find_profile(people, "train") == "patn"
    assert len(read_data(people, "train", (64, 40)).pairs) == 6


def test_data_can_be_sent_to_a_worker_after_it_was_read(root):
    data = read_data(root, "train", SIZE)
    first = data[0].image
    assert torch.equal(pickle.loads(pickle.dumps(data))[0].image, first)


def no_database_is_open(worker: int) -> None:
    assert not lmdb_store._open.cache_info().currsize


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_open_database_does_not_cross_a_fork(tmp_path):
    data = read_data(write_nted(tmp_path / "data"), "train", SIZE)
    first = data[0].image
    loader = torch.utils.data.DataLoader(
        data, num_workers=1, multiprocessing_context="fork", worker_init_fn=no_database_is_open
    )
    assert torch.equal(next(iter(loader)).image[0], first)
    assert torch.equal(data[0].image, first)


@pytest.mark.parametrize("size", [(512, 352), (256, 176), (750, 500), (100, 69)])
def test_keypoints_of_gfla_are_scaled_to_pictures_of_any_size(tmp_path, size):
    root = write_gfla(tmp_path / "data", size=size)
    assert find_profile(root, "train") == ("patn" if size == (256, 176) else "gfla")
    assert_marks_are_at_the_wrists(read_data(root, "train", SIZE))


def test_cfld_and_gfla_accept_the_other_ones_folder_when_they_are_named(tmp_path):
    cfld, gfla = write_cfld(tmp_path / "cfld"), write_gfla(tmp_path / "gfla")
    assert read_data(cfld, "train", SIZE, "gfla").names == read_data(cfld, "train", SIZE).names
    assert read_data(gfla, "train", SIZE, "cfld").names == read_data(gfla, "train", SIZE).names


def test_nted_names_the_target_first_and_then_its_sources(tmp_path):
    root = write_nted(tmp_path / "data")
    a, b, c = (
        f"img/WOMEN/Tees/id_0000000{person}/01_{pose}"
        for person, pose in ((0, "1_front"), (0, "2_back"), (1, "1_front"))
    )
    (root / "train_pairs.txt").write_text(f"{a}.jpg,{b}.png,{c}.jpg\n\n")
    data = read_data(root, "train", SIZE)
    assert [(data.names[x], data.names[y]) for x, y in data.pairs.tolist()] == [
        (f"{b}.png", f"{a}.png"),
        (f"{c}.png", f"{a}.png"),
    ]


def test_nted_joints_lose_the_white_bar_and_a_missing_one_stays_unknown(tmp_path):
    root = write_nted(tmp_path / "data")
    data = read_data(root, "train", SIZE)
    first = (root / data.names[0].replace("img/", "pose/")).with_suffix(".txt").read_text().split()
    assert data.keypoints[0, 1].tolist() == [float(first[2]) - 40, float(first[3])]
    assert torch.isnan(data.keypoints[:, 0]).all()


@pytest.mark.parametrize(
    ("height", "database"), [(64, "256-176"), (256, "256-176"), (512, "512-352"), (1024, "512-352")]
)
def test_nted_takes_the_smallest_database_that_is_large_enough(tmp_path, height, database):
    data = read_data(write_nted(tmp_path / "data", sizes=((256, 176), (512, 352))), "train", (height, height // 2))
    assert data.store.folder.name == database
    assert f"pictures are read from {database}" in data.notes[0]


@pytest.mark.parametrize("video", [False, True])
def test_a_pair_is_two_frames_of_one_video_and_every_frame_is_a_source_once(tmp_path, video):
    root = write_frames(tmp_path / "data", video=video, frames=7)
    data = read_data(root, "train", SIZE)
    pairs = [(data.names[a], data.names[b]) for a, b in data.pairs.tolist()]
    assert sorted(a for a, _ in pairs) == data.names
    assert all(a != b and a.split("/")[0] == b.split("/")[0] for a, b in pairs)
    assert torch.equal(read_data(root, "train", SIZE).pairs, data.pairs)


def test_single_splits_a_folder_by_name_and_keeps_pictures_where_they_were(tmp_path):
    root = write_single(tmp_path / "data", pictures=30)
    train, test = (read_data(root, phase, SIZE) for phase in ("train", "test"))
    assert sorted(train.names + test.names) == sorted(path.name for path in root.glob("*.png"))
    assert test.names
    assert train.pairs.tolist() == [[number, number] for number in range(len(train))]
    assert any("by the hash of their names" in note for note in train.notes)
    fewer = write_single(tmp_path / "fewer", pictures=20)
    assert set(read_data(fewer, "train", SIZE).names) <= set(train.names)


def test_auto_does_not_ignore_pairs(people):
    (people / "fasion-resize-pairs-train.csv").unlink()
    with pytest.raises(DataError, match=r"patn: expected one of .*\n  less so: gfla, .*single"):
        read_data(people, "train", SIZE)
    assert not read_data(people, "train", SIZE, "single").paired


def test_auto_says_why_no_profile_fits(tmp_path):
    with pytest.raises(DataError) as error:
        read_data(tmp_path, "train", SIZE)
    for profile in ("patn", "gfla", "cfld", "nted", "frames", "single"):
        assert f"\n  {profile}: expected " in str(error.value)
    with pytest.raises(DataError, match=r"no folder .*nowhere"):
        read_data(tmp_path / "nowhere", "train", SIZE)


@pytest.mark.parametrize(
    ("layout", "lost", "nearest", "reason"),
    [
        ("cfld", "fashion-resize-pairs-train.csv", "cfld", "expected one of fasion-resize-pairs-train.csv"),
        ("nted", "train_pairs.txt", "nted", "expected the pairs in .*train_pairs.txt"),
        ("frames", "train/dancer0.csv", "frames", "dancer0"),
        ("single", "keypoints.csv", "single", "expected one table of keypoints"),
    ],
)
def test_the_profile_that_nearly_fits_is_named_first_with_what_it_lacks(root, lost, nearest, reason):
    (root / lost).unlink()
    with pytest.raises(DataError, match=rf"{nearest} nearly does:\n  {nearest}: .*{reason}") as error:
        read_data(root, "train", SIZE)
    assert len(str(error.value).splitlines()) == 3


def test_a_fault_in_a_row_is_told_with_its_line_whatever_the_profile(people):
    table = people / "fasion-resize-annotation-train.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:2], "a.jpg: [1]: [1, 2]", *lines[3:]]) + "\n")
    with pytest.raises(DataError, match=r"nearly does:\n  patn: .*annotation-train.csv, line 3: keypoints that"):
        read_data(people, "train", SIZE)


def test_auto_asks_when_several_profiles_fit(tmp_path):
    write_people(tmp_path / "data")
    root = write_frames(tmp_path / "data2")
    for path in (tmp_path / "data").glob("*.csv"):
        shutil.copy(path, root / path.name)
    for path in (tmp_path / "data" / "train").iterdir():
        shutil.copy(path, root / "train" / path.name)
    with pytest.raises(DataError, match="could be patn or frames for train; say which one with --profile"):
        read_data(root, "train", SIZE)
    assert len(read_data(root, "train", SIZE, "patn").pairs) == 6


def test_auto_asks_when_both_frames_of_keypoints_are_possible(tmp_path):
    root = write_gfla(tmp_path / "data", size=(280, 190))
    with pytest.raises(DataError, match="could be patn or gfla"):
        read_data(root, "train", SIZE)


def test_a_few_bad_rows_and_sizes_do_not_change_the_profile(tmp_path):
    root = write_people(tmp_path / "data", train=6)
    table = root / "fasion-resize-annotation-train.csv"
    rows = table.read_text().splitlines()
    for number in (1, 2):
        rows[number] = f"{rows[number].split(':')[0]}:{[100] * 18}:{[100] * 18}"
    table.write_text("\n".join(rows) + "\n")
    Image.new("RGB", (700, 900)).save(root / "train" / "train4_0.jpg")
    assert find_profile(root, "train") == "patn"
    same = write_gfla(tmp_path / "same", people=4, size=(256, 176))
    Image.new("RGB", (256, 256)).save(same / "train" / "fashionWOMENTeesid0000000001_1front.jpg")
    assert find_profile(same, "train") == "patn"


@pytest.mark.parametrize(
    ("line", "left"), [("train0_0.jpg", 5), ("train/train0_0.jpg  # blurred", 5), ("test/train0_0.jpg", 6)]
)
def test_what_left_out_txt_names_is_left_out_and_counted(people, line, left):
    (people / "left_out.txt").write_text(f"# by hand\n\n{line}\n")
    data = read_data(people, "train", SIZE)
    assert len(data) == left
    said = any("1 picture(s) of the pairs are named in left_out.txt: train0_0.jpg" in note for note in data.notes)
    assert said == (left == 5)


def test_every_profile_honours_left_out_txt(root):
    name = read_data(root, "train", SIZE).names[0]
    (root / "left_out.txt").write_text(name)
    data = read_data(root, "train", SIZE)
    assert name not in data.names
    assert any("named in left_out.txt" in note for note in data.notes)


def test_a_video_can_be_left_out_as_a_whole(tmp_path):
    root = write_frames(tmp_path / "data", video=True)
    (root / "left_out.txt").write_text("dancer0.mp4\n")
    assert {name.split("/")[0] for name in read_data(root, "train", SIZE).names} == {"dancer1.mp4"}


def test_keypoints_outside_the_frame_are_unknown_and_counted(tmp_path):
    root = tmp_path / "data"
    (root / "train").mkdir(parents=True)
    picture, joints = person_with_marks((64, 40), (64, 40), torch.Generator().manual_seed(0))
    joints[2] = torch.tensor([40.0, 10.0])
    joints[3] = torch.tensor([39.0, 63.0])
    joints[5] = torch.tensor([10.0, 64.0])
    for name in ("a.png", "b.png"):
        picture.save(root / "train" / name)
    write_table(root / "keypoints.csv", {"a.png": joints, "b.png": joints + 100})
    data = read_data(root, "train", SIZE)
    assert data.names == ["a.png"]
    assert torch.isnan(data.keypoints[0]).any(dim=1).nonzero().flatten().tolist() == [2, 5]
    notes = "\n".join(data.notes)
    assert "2 keypoint(s) in 1 picture(s) lie outside the frame and count as unknown: a.png" in notes
    assert "1 picture(s) have no keypoint inside the frame: b.png" in notes


def test_several_rows_for_one_name_are_said(people):
    table = people / "fasion-resize-annotation-train.csv"
    rows = table.read_text().splitlines()
    table.write_text("\n".join([*rows, rows[1]]) + "\n")
    assert any("1 name(s) have several rows" in note for note in read_data(people, "train", SIZE).notes)


def test_a_picture_that_is_cut_off_is_named_with_the_way_out(people):
    data = read_data(people, "train", SIZE)
    path = people / "train" / data.names[0]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=rf"{data.names[0]} cannot be read .*python -m examples.pose_morph.doctor"):
        data[0]
    with pytest.raises(DataError) as error:  # pictures of no data set have no doctor
        data.store.read(data.names[0])
    assert "doctor" not in str(error.value)


def test_a_value_that_is_cut_off_is_named_with_its_key(tmp_path):
    root = write_nted(tmp_path / "data")
    data = read_data(root, "train", SIZE)
    key = data.names[1]
    with lmdb.open(str(tmp_path / "copy"), map_size=2**24) as copy, copy.begin(write=True) as all_:
        all_.put(key.encode(), b"\x89PNG\r\n")
    shutil.rmtree(root / "256-176")
    (tmp_path / "copy").rename(root / "512-352")
    with pytest.raises(
        DataError, match=r"no usable pair(.|\n)*not in the database 512-352: (.|\n)*cannot be read as pictures: img"
    ):
        read_data(root, "train", SIZE)


def test_a_video_that_is_no_video_is_left_out(tmp_path):
    root = write_frames(tmp_path / "data", video=True)
    (root / "train" / "dancer0.mp4").write_bytes(b"no video at all")
    data = read_data(root, "train", SIZE)
    assert any("3 picture(s) of the pairs are in videos that cannot be read: dancer0.mp4/0" in n for n in data.notes)
    assert {name.split("/")[0] for name in data.names} == {"dancer1.mp4"}


def test_rows_beyond_the_last_frame_are_left_out(tmp_path):
    root = write_frames(tmp_path / "data", video=True)
    table = root / "train" / "dancer0.csv"
    table.write_text(table.read_text().replace("002:", "7:"))
    assert any("beyond the last frame of their video: dancer0.mp4/7" in n for n in read_data(root, "train", SIZE).notes)


@pytest.mark.parametrize(
    ("layout", "lost", "message"),
    [
        ("frames", "train/dancer1.csv", r"keypoints of .*dancer1 in .*dancer1.csv, which is not there"),
        ("nted", "test_pairs.txt", None),
        ("nted", "train_pairs.txt", r"expected the pairs in .*train_pairs.txt"),
        ("single", "keypoints.csv", r"expected one table of keypoints .* found none"),
        ("gfla", "fasion-annotation-train.csv", r"fasion-annotation-train.csv.* none is there"),
    ],
)
def test_a_missing_file_is_named(root, layout, lost, message):
    (root / lost).unlink()
    if message is None:
        assert find_profile(root, "train") == layout
        return
    with pytest.raises(DataError, match=message):
        read_data(root, "train", SIZE, layout)


@pytest.mark.parametrize(
    ("layout", "file", "text", "message"),
    [
        ("nted", "train_pairs.txt", "a.png\n", "line 1: expected target,source"),
        ("nted", "train_pairs.txt", "a.png,\n", "line 1: expected target,source"),
        ("nted", "pose/WOMEN/Tees/id_00000000/01_1_front.txt", "1 2\n", "expected 18 rows of x y"),
        ("nted", "pose/WOMEN/Tees/id_00000000/01_1_front.txt", "1 two\n", "line 1: expected numbers x y"),
        ("frames, video files", "train/dancer0.csv", f"{HEADER}first:{[1] * 18}:{[1] * 18}", "number of a frame"),
        ("frames", "train/dancer0.csv", "name,y,x\n", "has no column name, keypoints_y"),
        ("frames", "train/dancer0.mp4", "", "belongs to dancer0 and to dancer0.mp4"),
        ("single", "more.csv", HEADER, "found keypoints.csv, more.csv"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named(root, layout, file, text, message):
    (root / file).write_text(text)
    with pytest.raises(DataError, match=message):
        read_data(root, "train", SIZE, layout.partition(",")[0])


def test_a_folder_that_only_looks_like_a_database_is_named(tmp_path):
    root = write_nted(tmp_path / "data")
    (root / "256-176" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match="256-176 cannot be opened as an LMDB database"):
        read_data(root, "train", SIZE)


def test_a_video_with_one_frame_is_said(tmp_path):
    root = write_frames(tmp_path / "data")
    write_video(root / "train" / "still.mp4", [Image.new("RGB", (48, 64))])
    write_table(root / "train" / "still.csv", {"0": torch.full((18, 2), 5.0)})
    notes = read_data(root, "train", SIZE).notes
    assert notes == ["train: 1 video(s) have fewer than two frames in their table: still.mp4"]


def test_with_both_folders_gfla_and_cfld_take_their_own(tmp_path):
    root = write_cfld(tmp_path / "data")
    shutil.copytree(root / "train_highres", root / "train")
    assert read_data(root, "train", SIZE, "cfld").store.folder.name == "train_highres"
    assert read_data(root, "train", SIZE, "gfla").store.folder.name == "train"
    with pytest.raises(DataError, match="could be gfla or cfld"):
        read_data(root, "train", SIZE)
