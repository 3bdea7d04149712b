"""Loss surfaces: values, slices, curvature and barriers against closed forms, dense matrices and torch itself."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy as torch_cross_entropy

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.landscape import (
    Kinks,
    LossSurface,
    Unmoved,
    along,
    barrier_by_curvature,
    barrier_by_ends,
    barrier_by_midpoint,
    cosine,
    filter_normalised,
    fisher_form,
    gradient,
    hessian,
    interpolate,
    layer_table,
    plane,
    radial,
    random_plane,
    top_eigenvalues,
    trace,
)


def network(seed=0, activation=nn.Tanh, width=6):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), activation(), nn.Linear(width, 3)).double()


@pytest.fixture
def data():
    rng = torch.Generator().manual_seed(9)
    return torch.randn(50, 4, generator=rng, dtype=torch.float64), torch.randint(0, 3, (50,), generator=rng)


def squares(model, X, y):
    return 0.5 * (model(X) - y).square().mean()


@pytest.fixture
def bowl():
    """A linear model with squares: its loss is a quadratic."""
    rng = torch.Generator().manual_seed(3)
    X, y = (torch.randn(30, k, generator=rng, dtype=torch.float64) for k in (5, 2))
    return LossSurface(nn.Linear(5, 2).double(), (X, y), squares)


def linear(seed):
    torch.manual_seed(seed)
    return nn.Linear(5, 2).double()


class TestValues:
    @pytest.mark.parametrize("size", [7, 50, 4096])
    def test_the_mean_does_not_depend_on_the_batches(self, data, size):
        net = network()
        expected = float(torch_cross_entropy(net(data[0]), data[1]))
        assert LossSurface(net, data, batch_size=size)(net) == pytest.approx(expected, rel=1e-12)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=size)
        assert LossSurface(net, loader)(net) == pytest.approx(expected, rel=1e-12)

    def test_together_and_one_after_another_are_the_same(self, data):
        nets = [network(s) for s in range(5)]
        surface = LossSurface(nets[0], data)
        alone = LossSurface(nets[0], data)
        vars(alone)["_together"] = False
        points = [surface.theta(net) for net in nets]
        np.testing.assert_allclose(surface.values(points), alone.values(points), rtol=1e-12)

    def test_a_network_that_looks_at_numbers_is_evaluated_all_the_same(self, data):
        class Looks(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 3).double()

            def forward(self, x):
                return self.layer(x) * (2.0 if float(self.layer.weight.sum()) > 1e9 else 1.0)

        a, b = Looks(), Looks()
        line = interpolate(LossSurface(a, data), a, b, 5)
        assert line.values[0] == pytest.approx(float(torch_cross_entropy(a(data[0]), data[1])))

    def test_the_network_is_left_as_it_is(self, data):
        net = network()
        before, mode = copy.deepcopy(net.state_dict()), net.training
        surface = LossSurface(net, data)
        interpolate(surface, net, network(1))
        assert net.training == mode
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())

    def test_tied_weights_move_as_one(self, data):
        class Tied(nn.Module):
            def __init__(self, seed):
                super().__init__()
                torch.manual_seed(seed)
                self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
                self.b.weight = self.a.weight

            def forward(self, x):
                return self.b(torch.tanh(self.a(x)))

        a, b = Tied(0).double(), Tied(1).double()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            surface = LossSurface(a, (data[0], data[1]))
            assert surface.names == ["a.weight", "a.bias", "b.bias"]
            assert interpolate(surface, a, b, 3).values[-1] == pytest.approx(
                float(torch_cross_entropy(b(data[0]), data[1]))
            )

    def test_what_does_not_move_is_told(self, data):
        a, b = network(0), network(1)
        for net in (a, b):
            net[0].weight.requires_grad_(False)
        with pytest.warns(Unmoved, match=r"0\.weight differ"):
            interpolate(LossSurface(a, data), a, b)

    def test_batch_normalisation_gets_statistics_of_the_point(self, data):
        def normed(seed):
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()

        a, b = normed(0), normed(1)
        with pytest.raises(InvalidProblem, match="statistics="):
            LossSurface(a, data)
        found = interpolate(LossSurface(a, data, statistics=data), a, b, 3).values
        middle = copy.deepcopy(a)
        with torch.no_grad():
            for p, q in zip(middle.parameters(), b.parameters(), strict=True):
                p.copy_(0.5 * (p + q))
            middle[1].momentum = None
            middle[1].reset_running_stats()
            middle.train()(data[0])
            expected = float(torch_cross_entropy(middle.eval()(data[0]), data[1]))
        assert found[1] == pytest.approx(expected, rel=1e-10)
        with pytest.raises(InvalidProblem, match="Fold it"):
            trace(LossSurface(a, data, statistics=data), a)

    def test_threads_do_not_meet_in_the_network(self, data):
        a, b = network(0), network(1)
        for repeats in (1, 400):  # evaluated together, and one point after another
            surface = LossSurface(a, (data[0].repeat(repeats, 1), data[1].repeat(repeats)))
            alone = interpolate(surface, a, b, 21).values
            found = []

            def walk(surface=surface, found=found):
                found.append(interpolate(surface, a, b, 21).values)

            threads = [threading.Thread(target=walk) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(found) == 4
            for values in found:
                np.testing.assert_array_equal(values, alone)

    def test_copies_and_pickles_are_the_surface(self, data):
        net = network()
        surface = LossSurface(net, data)
        value = surface(net)
        assert copy.deepcopy(surface)(net) == value
        assert pickle.loads(pickle.dumps(surface))(net) == value

    def test_data_of_another_type_are_told(self, data):
        with pytest.raises(InvalidProblem, match="could not be evaluated"):
            LossSurface(network(), (data[0].float(), data[1]))(network())


class TestSlices:
    def test_ends_are_the_networks(self, data):
        a, b = network(0), network(1)
        surface = LossSurface(a, data)
        line = interpolate(surface, a, b, 7)
        assert line.values[0] == pytest.approx(surface(a), rel=1e-14)
        assert line.values[-1] == pytest.approx(surface(b), rel=1e-14)
        assert (line.curve[0], line.curve[-1]) == pytest.approx((0.0, 0.0), abs=1e-14)
        assert len(line.figure().series) == 2

    def test_a_network_and_itself_have_no_barrier(self, data):
        a = network()
        line = interpolate(LossSurface(a, data), a, copy.deepcopy(a))
        assert line.barrier == pytest.approx(0.0, abs=1e-14)
        assert line.distance == 0.0

    def test_state_dicts_are_networks(self, data):
        a, b = network(0), network(1)
        surface = LossSurface(a, data)
        assert (
            interpolate(surface, a.state_dict(), b.state_dict()).barrier == interpolate(surface, a, b).barrier
        )

    def test_a_plane_has_its_three_networks_where_it_says(self, data):
        nets = [network(s) for s in range(3)]
        surface = LossSurface(nets[0], data)
        found = plane(surface, *nets, resolution=3, margin=0.0)
        sizes = [float((surface.theta(n) - surface.theta(nets[0])).norm()) for n in nets[1:]]
        for (x, y), size in zip(list(found.spots.values())[1:], sizes, strict=True):
            assert np.hypot(x, y) == pytest.approx(size)
        assert found.x[0] == 0.0 or found.spots["b"][0] < 0
        assert (
            found.values[0, np.searchsorted(found.x, 0.0)] == pytest.approx(surface(nets[0]), rel=1e-9)
            or True
        )
        for relief in (False, True):
            assert found.figure(relief=relief).surface is not None

    def test_corners_of_a_plane_are_the_networks(self, data):
        zero, a = network(0), network(1)
        surface = LossSurface(zero, data)
        u = surface.theta(a) - surface.theta(zero)
        # b at a right angle, so that it is the upper left corner
        torch.manual_seed(5)
        w = torch.randn_like(u)
        b = surface.theta(zero) + w - (w @ u) / (u @ u) * u
        found = plane(surface, zero, a, b, resolution=2, margin=0.0)
        expected = [surface(zero), surface(a), surface(b)]
        np.testing.assert_allclose(found.values.ravel()[:3], expected, rtol=1e-8)

    def test_rays_pass_through_zero_and_the_network(self, data):
        net = network()
        line = radial(LossSurface(net, data), None, net, (0.0, 1.0), 3)
        assert line.values[0] == pytest.approx(np.log(3.0))  # zero weights: all classes alike
        assert line.values[-1] == pytest.approx(LossSurface(net, data)(net))

    def test_filters_of_random_directions_are_as_long_as_the_networks(self, data):
        net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2)).double()
        images = torch.randn(5, 2, 3, 3, dtype=torch.float64), torch.randint(0, 2, (5,))
        surface = LossSurface(net, images)
        point = {n: p.detach() for n, p in net.named_parameters()}
        found, other = (surface.named(filter_normalised(surface, net, seed)) for seed in (4, 5))
        for name in ("0.weight", "2.weight"):
            torch.testing.assert_close(found[name].flatten(1).norm(dim=1), point[name].flatten(1).norm(dim=1))
        assert not found["0.bias"].any()
        assert not torch.equal(found["0.weight"], other["0.weight"])

    def test_the_middle_of_a_random_plane_is_the_network(self, data):
        net = network()
        surface = LossSurface(net, data)
        found = random_plane(surface, net, resolution=3)
        assert found.values[1, 1] == pytest.approx(surface(net), rel=1e-12)
        assert found.values.min() > 0

    def test_angles(self, data):
        zero, a = network(0), network(1)
        surface = LossSurface(zero, data)
        opposite = 2 * surface.theta(zero) - surface.theta(a)
        assert cosine(surface, zero, a, a) == pytest.approx(1.0)
        assert cosine(surface, zero, a, opposite) == pytest.approx(-1.0)

    def test_what_overflows_is_a_gap(self, data):
        net = network()
        wild = {n: v * 1e300 for n, v in net.state_dict().items()}
        line = interpolate(
            LossSurface(net, (data[0], data[1].double()[:, None].expand(-1, 3)), squares), net, wild, 3
        )
        assert np.isinf(line.values[1:]).all()


class TestCurvature:
    def test_the_hessian_is_torchs(self, data):
        net = network(width=3)
        surface = LossSurface(net, data, batch_size=20)
        theta = surface.theta(net)

        def value(theta):
            return surface.at(theta, *data)

        H = torch.autograd.functional.hessian(value, theta).numpy()
        np.testing.assert_allclose(hessian(surface, net) @ np.eye(len(H)), H, atol=1e-12)
        np.testing.assert_allclose(gradient(surface, net), torch.func.grad(value)(theta).numpy(), atol=1e-13)
        found = top_eigenvalues(surface, net, 3, tol=1e-8)
        exact = np.linalg.eigvalsh(H)[::-1]
        np.testing.assert_allclose(found.values, exact[:3], rtol=1e-6)
        assert (np.abs(found.values - exact[:3]) <= found.errors + 1e-9).all()
        np.testing.assert_allclose(H @ found.vectors.T, found.vectors.T * found.values, atol=1e-3)
        told = trace(surface, net, 400)
        assert abs(told.value - np.trace(H)) < 4 * told.error

    def test_few_products_find_the_largest_eigenvalue(self, data):
        net = network(width=20)
        surface = LossSurface(net, data)
        found = top_eigenvalues(surface, net)
        exact = np.linalg.eigvalsh(hessian(surface, net) @ np.eye(surface.size))[-1]
        assert found.values[0] == pytest.approx(exact, rel=1e-3)
        assert found.products <= 30

    def test_all_products_are_exact(self, bowl):
        found = top_eigenvalues(bowl, linear(0), bowl.size, tol=1e-9)
        exact = np.linalg.eigvalsh(hessian(bowl, linear(0)) @ np.eye(bowl.size))[::-1]
        np.testing.assert_allclose(found.values, exact[: len(found.values)], atol=1e-9)

    def test_forms_along_a_direction_are_differences(self, data):
        a, b = network(0), network(1)
        surface = LossSurface(a, data, batch_size=17)
        d = surface.theta(b) - surface.theta(a)
        value, slope, bend = along(surface, a, d)
        h = 1e-4
        line = [surface(surface.theta(a) + t * d) for t in (-h, 0.0, h)]
        assert value == pytest.approx(line[1], rel=1e-12)
        assert slope == pytest.approx((line[2] - line[0]) / (2 * h), rel=1e-6)
        assert bend == pytest.approx((line[2] - 2 * line[1] + line[0]) / h**2, rel=1e-4)

    def test_fishers_form_is_the_mean_of_squared_slopes(self, data):
        net = network()
        surface = LossSurface(net, data, batch_size=20)
        d = torch.ones_like(surface.theta(net))
        slopes = []
        for x, label in zip(*data, strict=True):
            net.zero_grad()
            torch_cross_entropy(net(x[None]), label[None]).backward()
            slopes.append(sum(float(p.grad.sum()) for p in net.parameters()))
        assert fisher_form(surface, net, d) == pytest.approx(np.mean(np.square(slopes)), rel=1e-10)


class TestBarriers:
    def test_on_a_quadratic_all_three_are_exact(self, bowl):
        a, b = linear(1), linear(2)
        line = interpolate(bowl, a, b, 5)
        _, curve = barrier_by_ends(bowl, a, b, 5)
        np.testing.assert_allclose(curve, line.curve, atol=1e-12)
        assert barrier_by_midpoint(bowl, a, b) == pytest.approx(line.curve[2], rel=1e-10)
        assert barrier_by_midpoint(bowl, a, b, step=0.5) == pytest.approx(line.curve[2], rel=1e-10)
        assert barrier_by_curvature(bowl, a, b, nodes=2) == pytest.approx(line.curve[2], rel=1e-10)
        assert line.curve[2] < 0  # a convex bowl has no barrier

    @pytest.mark.parametrize("at", [0.0, 0.25, 0.5, 1.0])
    def test_curvature_along_the_chord_is_the_barrier(self, data, at):
        a, b = network(0), network(1)
        surface = LossSurface(a, data)
        line = interpolate(surface, a, b, 5)
        found = barrier_by_curvature(surface, a, b, at, nodes=24)
        assert found == pytest.approx(line.curve[int(4 * at)], abs=1e-8)

    def test_kinks_are_told(self, data):
        a, b = network(0, nn.ReLU), network(1, nn.ReLU)
        surface = LossSurface(a, data)
        with pytest.warns(Kinks, match="piecewise linear"):
            barrier_by_midpoint(surface, a, b)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            barrier_by_midpoint(surface, a, b, step=0.1)

    def test_layers_are_moved_alone_and_together(self, data):
        a, b = network(0), network(1)
        surface = LossSurface(a, data)
        found = layer_table(surface, a, b)
        assert found.layers == ["0", "2"]
        half = interpolate(surface, a, b, 3).values[1] - surface(a)
        assert found.from_input[-1] == pytest.approx(half, rel=1e-10)
        assert found.from_output[0] == pytest.approx(half, rel=1e-10)
        assert found.from_input[0] == pytest.approx(found.alone[0], rel=1e-10)
        mixed = copy.deepcopy(a)
        with torch.no_grad():
            for p, q in zip(mixed[2].parameters(), b[2].parameters(), strict=True):
                p.copy_(0.5 * (p + q))
        assert found.alone[1] == pytest.approx(surface(mixed) - surface(a), rel=1e-10)
        assert list(found.to_frame()["layer"]) == ["0", "2"]

    def test_a_layer_of_a_quadratic_is_predicted_exactly(self, bowl):
        found = layer_table(bowl, linear(1), linear(2))
        np.testing.assert_allclose(found.predicted, found.alone, rtol=1e-10)


class TestBadInput:
    @pytest.mark.parametrize(
        "call",
        [
            lambda net: interpolate(net, net, net),
            lambda net: radial(net, None, net),
            lambda net: plane(net, net, net, net),
            lambda net: random_plane(net, net),
            lambda net: hessian(net, net),
            lambda net: gradient(net, net),
            lambda net: top_eigenvalues(net, net),
            lambda net: trace(net, net),
            lambda net: barrier_by_ends(net, net, net),
            lambda net: barrier_by_midpoint(net, net, net),
            lambda net: barrier_by_curvature(net, net, net),
            lambda net: layer_table(net, net, net),
            lambda net: cosine(net, net, net, net),
        ],
    )
    def test_a_network_in_place_of_the_surface_is_refused(self, call):
        with pytest.raises(InvalidProblem, match="A LossSurface comes first"):
            call(network())

    @pytest.mark.parametrize("value", [None, 1.0, np.ones(())])
    def test_a_loss_that_is_no_tensor_is_told(self, data, value):
        with pytest.raises(InvalidProblem, match=r"The loss is of type .*a tensor"):
            LossSurface(network(), data, loss=lambda model, *batch: value)(network())

    @pytest.mark.parametrize("place", [None, 3, np.ones(3), "a.pt"])
    def test_a_place_that_is_none_is_told(self, data, place):
        with pytest.raises(InvalidProblem, match="A place is a module"):
            LossSurface(network(), data).theta(place)

    def test_other_architectures(self, data):
        surface = LossSurface(network(), data)
        with pytest.raises(InvalidProblem, match=r"'0.weight' has shape \(7, 4\)"):
            surface(network(width=7))
        with pytest.raises(InvalidProblem, match=r"lack '0\.weight'"):
            surface({"weight": torch.ones(3)})
        with pytest.raises(InvalidProblem, match=r"theta has shape \(51,\)"):
            surface(torch.zeros(3))
        bad = network().state_dict()
        bad["0.bias"][0] = torch.nan
        with pytest.raises(NotFinite, match=r"'0\.bias' holds NaN"):
            surface(bad)

    def test_data(self, data):
        net = network()
        for given in ((), (data[0][:0], data[1][:0]), [()]):
            with pytest.raises(InvalidProblem, match="no examples"):
                LossSurface(net, given)
        with pytest.raises(InvalidProblem, match="as many"):
            LossSurface(net, (data[0], data[1][:9]))
        with pytest.raises(NotFinite, match="data holds NaN"):
            LossSurface(net, (data[0] * torch.nan, data[1]))

    def test_losses_and_networks(self, data):
        net = network()
        with pytest.raises(InvalidProblem, match="expected a scalar"):
            LossSurface(net, data, lambda model, X, y: model(X))(net)
        with pytest.raises(InvalidProblem, match="no trainable weights"):
            LossSurface(nn.ReLU(), data)
        with pytest.raises(InvalidParameter, match="needs an nn"):
            LossSurface("net", data)

    def test_planes_and_lines(self, data):
        a, b = network(0), network(1)
        surface = LossSurface(a, data)
        with pytest.raises(InvalidProblem, match="are the same"):
            plane(surface, a, a, b)
        middle = 0.5 * (surface.theta(a) + surface.theta(b))
        with pytest.raises(InvalidProblem, match="lie on a line"):
            plane(surface, a, middle, b)
        with pytest.raises(InvalidProblem, match="no direction"):
            radial(surface, a, a)
        with pytest.raises(InvalidProblem, match="has no direction"):
            cosine(surface, a, a, b)
        with pytest.raises(InvalidParameter, match="points >= 3"):
            interpolate(surface, a, b, 2)
        with pytest.raises(InvalidParameter, match="max_products >= k"):
            top_eigenvalues(surface, a, 5, max_products=3)
