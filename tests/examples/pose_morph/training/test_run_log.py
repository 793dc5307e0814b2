import json

from examples.pose_morph.training.run_log import RunLog


def test_a_resumed_log_drops_what_came_after_the_checkpoint_and_a_line_that_a_kill_cut_short(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path, 0)
    for step in (1, 2, 3):
        log.add({"per": float(step)})
        log.write(step, 0.1)
    with path.open("a") as file:
        file.write('{"step": 2, "sec')
    log = RunLog(path, 2)
    log.add({"per": 5.0})
    log.add({"per": 7.0})
    log.write(4, 0.2)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["per"]) for line in lines] == [(1, 1.0), (2, 2.0), (4, 6.0)]
