"""The examples run, and show what they say they show."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_simulation_learns_to_need_fewer_iterations():
    learned, plain = example("simulation_that_learns").main(steps=300)
    assert learned < 0.6 * plain


def test_weights_stay_in_their_bound():
    accuracy, largest = example("bounded_weights").main(steps=600)
    assert largest <= 0.25 * (1 + 1e-5)
    assert accuracy > 0.9


def test_optimizers_are_compared_on_ones_own_network(tmp_path):
    found = example("compare_optimizers").main(str(tmp_path / "page.html"), steps=30)
    assert len(found.rows) == 4 * 3
    assert "Lion, REX" in (tmp_path / "page.html").read_text()


def test_an_equilibrium_layer_learns_and_keeps_no_iterations():
    accuracy, kept = example("deep_equilibrium").main(steps=80)
    assert accuracy > 0.8
    assert kept < 64 * 32 * 8  # some tensors of the batch's size, not sixty


def test_a_support_vector_machines_strength_is_learned_by_any_solver():
    first, last, spread = example("svm_hyperparameters").main(examples=40, steps=3)
    assert last < first
    assert spread < 1e-3


def test_ten_distilled_images_teach_more_than_ten_examples():
    before, after = example("dataset_distillation").main(steps=15)
    assert after > before + 0.1


def test_a_task_driven_dictionary_keeps_up_with_an_unsupervised_one():
    unsupervised, task_driven = example("dictionary_learning").main(steps=10, seeds=(0,))
    assert unsupervised > 0.98
    assert task_driven > unsupervised - 0.005


def test_a_packings_sensitivity_is_that_of_differences():
    force, implicit, _ = example("molecular_sensitivity").main()
    assert force < 1e-10
    assert implicit < 1e-4


def test_wrong_labels_lose_their_weight():
    before, after, apart = example("data_hypercleaning").main(steps=60)
    assert after > before + 0.03
    assert apart > 0.5


def test_an_encoder_is_learned_for_several_heads():
    before, after = example("hyper_representation").main(steps=150)
    assert after > before + 0.05


def test_networks_tune_their_own_regularisation():
    ends = example("self_tuned_networks").main(steps=100)
    assert set(ends) == {"digits", "text"}
    assert all(first != last for first, last in ends.values())


def test_a_schedule_is_refined_from_a_run_and_raced():
    found = example("refine_a_schedule").main(steps=30, seeds=(0,))
    assert len(found.rows) == 3


def test_smoke_rises_with_a_tenth_of_the_iterations(tmp_path):
    ours, theirs = example("smoke_plume").main(str(tmp_path / "smoke.html"), side=32, frames=10)
    assert ours < theirs / 8
    assert "Frame 9" in (tmp_path / "smoke.html").read_text()


def test_columns_enter_a_lassos_path_one_after_another():
    order, best = example("lasso_path").main()
    assert set(order[:2]) == {"bmi", "s5"}
    assert 0.0 < best < 10.0


def test_a_trained_network_is_polished_and_certified():
    before, after, lower = example("certified_network").main(steps=500)
    assert after <= before
    assert after - lower <= 2e-3 * after


def test_unlabelled_digits_help():
    spread, alone = example("few_labels").main()
    assert spread > alone + 0.05


def test_the_worst_examples_count_in_a_game():
    worst, usual, residual = example("robust_regression").main(examples=40)
    assert residual <= 1e-3
    assert worst < usual


def test_a_plate_is_heated_to_a_target_by_projections(tmp_path):
    steps, residual, distance = example("optimal_control").main(side=36, page=tmp_path / "control.html")
    assert residual <= 1e-6
    assert steps <= 20
    assert distance < 0.1
    assert "Control" in (tmp_path / "control.html").read_text()


def test_every_group_of_people_does_better_than_with_one_model(tmp_path):
    found = example("no_group_left_behind").main(str(tmp_path / "page.html"))
    assert len(found) == 12
    assert all(ours < one for ours, one in found.values())
    assert "one model for all" in (tmp_path / "page.html").read_text()


def test_a_courier_learns_which_way_is_jammed(tmp_path):
    ours, random = example("deliveries_through_changing_jams").main(str(tmp_path / "page.html"))
    assert ours < 0.6 * random
    assert "moves at random" in (tmp_path / "page.html").read_text()


def test_a_table_of_sensors_is_filled_to_near_its_noise():
    plain, error, rank = example("fill_a_table").main()
    assert error < 0.5 < plain / 5
    assert rank >= 3


def test_a_good_alloy_takes_a_handful_of_experiments(tmp_path):
    found = example("few_experiments").main(str(tmp_path / "page.html"))
    experiments, below = found["elimination, eps known"]
    assert experiments < found["elimination, eps unknown"][0] < 30
    assert below <= 0.1  # twice eps
    assert below < found["as many at random"][1] - 0.05
    assert "below the best" in (tmp_path / "page.html").read_text()


def test_a_light_and_its_rule_are_improved_without_a_model():
    fixed, numbers, first, last = example("improve_a_workflow").main(runs=30, edits=60)
    assert numbers < 0.3 * fixed
    assert last < first


def test_a_prompt_is_improved_by_replies_that_are_played_back():
    scores, prompt = example("improve_a_prompt").main()
    assert scores[0] == 0.0
    assert scores[-1] == 1.0
    assert prompt.startswith("Sort this ticket. Answer with one word")


def test_a_pipelines_hyper_parameters_are_found():
    before, after, values = example("tune_a_pipeline").main(runs=15)
    assert after > before + 0.05
    assert values["kind"] == "radial"


def test_every_example_is_tested_here():
    tested = Path(__file__).read_text(encoding="utf-8")
    missing = [path.stem for path in EXAMPLES.glob("*.py") if f'example("{path.stem}")' not in tested]
    assert missing == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_an_example_says_how_to_run_it(path):
    assert f"python examples/{path.name}" in path.read_text()


@pytest.mark.parametrize(
    ("task", "engine", "steps", "least"),
    [
        ("federated", "virtual", 60, 0.8),
        ("coded", "virtual", 60, 0.8),
        ("coded", "ray", 60, 0.8),
    ],
)
def test_one_script_trains_on_every_engine(task, engine, steps, least, monkeypatch):
    script = example("train_anywhere")
    monkeypatch.setattr(script, "WORKERS", 4)  # a process each
    assert script.main(task, engine, steps) > least


def test_the_same_script_trains_on_flower():
    """Its server counts seconds: on a busy machine few messages come in the first of them."""
    train = example("train_anywhere").main
    assert any(
        train("federated", "flower", aggregations) > 0.3 for aggregations in (14, 28, 56, 112, 224, 448)
    )


def test_the_flower_app_has_a_server_and_a_client():
    pytest.importorskip("flwr")
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

    app = example("flower_app/fedfix_digits/app")
    assert isinstance(app.client, ClientApp)
    assert isinstance(app.server, ServerApp)
    assert len(app.own_data(1).clients) == 1


def test_a_photograph_loses_its_noise_by_a_basis_of_its_own(tmp_path):
    found = example("denoise_photograph").main(str(tmp_path / "page.html"), steps=200, side=96)
    assert found["learned basis"] > found["noisy"] + 4.0
    assert "discrete cosine transform" in (tmp_path / "page.html").read_text()


def test_a_width_is_a_trap_until_training_stops_early(tmp_path):
    exact, stopped = example("is_my_width_safe").main(str(tmp_path / "page.html"))
    assert exact.threatened
    assert exact.peak_width == 100
    assert not stopped.threatened
    assert stopped.peak < 0.05 * exact.peak
    assert "Error by width" in (tmp_path / "page.html").read_text()


def test_runs_that_part_early_end_in_two_valleys(tmp_path):
    found = example("two_valleys").main(str(tmp_path / "page.html"))
    assert found[0] > 0.3
    assert found[800] < 0.5 * found[0]
    assert '"surface"' in (tmp_path / "page.html").read_text()


def test_the_mean_of_two_networks_is_one_where_their_units_are_matched():
    plain, matched = example("two_networks_one_basin").main(steps=400)
    assert matched > plain + 0.05
    assert matched > 0.9


def test_one_digit_becomes_another(tmp_path):
    before, after = example("one_digit_into_another").main(str(tmp_path / "page.html"), steps=300)
    assert before < 0.05
    assert after > 0.9
    assert "Ways from 3 to 8" in (tmp_path / "page.html").read_text()


def test_a_courier_is_aligned_by_expectation_and_by_hand():
    shares, by_hand = example("align_a_courier").main()
    assert shares["default"] > 0.97
    assert shares["log-likelihood, whole derivative"] < 0.9
    assert by_hand > 0.9


def test_a_pole_is_balanced_by_who_says_what_went_better():
    first, last, questions = example("balance_by_preference").main(steps=8)
    assert last > first + 10
    assert questions == 64


def test_an_arm_swings_up_by_who_says_what_came_higher():
    first, last, questions = example("swing_by_preference").main(steps=5)
    assert last > first + 0.3
    assert questions == 40


def test_orders_that_may_fail_are_worth_more_when_chosen_for_it(tmp_path):
    profits = example("orders_that_may_fail").main(str(tmp_path / "page.html"))
    assert profits["robust"][-1] > profits["nominal"][-1]
    for robust, bound in zip(profits["robust"], profits["no decision is above"], strict=True):
        assert 0.95 * bound < robust <= bound * (1 + 1e-6)
    assert "What losses cost" in (tmp_path / "page.html").read_text()


def test_an_image_comes_from_eight_views(tmp_path):
    found = example("image_from_eight_views").main(str(tmp_path / "page.html"), steps=20, samples=4)
    assert found["mean of samples"] > found["pseudo-inverse"] + 2.0
    assert found["one sample"] > found["filtered back-projection"] + 5.0
    assert found["deviation"] > 0.0
    assert "Their deviation" in (tmp_path / "page.html").read_text()


def test_a_rule_is_found_and_trains_another_network(tmp_path):
    before, after, other = example("discover_an_optimizer").main(
        str(tmp_path / "found.py"), evaluations=60, steps=30
    )
    assert after < before
    assert "class Found(ProgramOptimizer)" in (tmp_path / "found.py").read_text()
    assert [row["method"] for row in other.rows] == ["found", "where it began", "AdamW, rate .01"]


def test_turned_digits_are_read_without_their_labels():
    before, after = example("digits_turned").main(steps=300)
    assert after > before + 0.1


def test_dna_that_a_protein_binds_is_proposed(tmp_path):
    best_row, median, best = example("bind_a_protein").main(str(tmp_path / "page.html"))
    assert median > best_row
    assert best > 1.5 * best_row
    assert "Letters of the proposals" in (tmp_path / "page.html").read_text()
