"""Interfaces by name: registered, installed by a plug-in, or ``package.module:Class``."""

import dataclasses
import inspect
import subprocess
import sys

import pytest

import s3prl_interfaces
from s3prl_interfaces import build_interface, list_interfaces, register_interface
from s3prl_interfaces.interfaces import Interface, WeightedSum, get_spec, interface_options, registry

SIZES = {"num_layers": 3, "feature_dim": 8}
BUILT_IN = [
    "cls_pooling",
    "concat",
    "grouped_weighted_sum",
    "hconv",
    "last_layer",
    "pca_concat",
    "single_layer",
    "weighted_sum",
]
SOURCE = """
from s3prl_interfaces.interfaces import WeightedSum
class First(WeightedSum):
    'The first.\\n\\nMore.'
class Second(WeightedSum): ...
class Wrong: ...
"""


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))


def make_class(name="Mine", module="mine"):
    return type(name, (WeightedSum,), {"__module__": module, "__qualname__": name, "__doc__": "Mine.\n\nAll."})


def test_list():
    names = list_interfaces()
    assert names == sorted(names)
    assert [name for name in names if name in BUILT_IN] == BUILT_IN


@pytest.mark.parametrize("name", BUILT_IN)
def test_specs(name):
    spec = get_spec(name)
    assert spec.name == name
    assert issubclass(spec.cls, Interface)
    assert spec.cls is type(build_interface(name, num_layers=13, feature_dim=8))
    assert spec.description.endswith(".")
    assert "\n" not in spec.description
    assert "2406.12209" in spec.paper
    assert spec.fitted == hasattr(spec.cls, "partial_fit")
    assert not spec.looks_across_time
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"
    build_interface(name, num_layers=spec.min_layers, feature_dim=8)
    if spec.min_layers > 1:
        with pytest.raises(ValueError, match="must be at"):
            build_interface(name, num_layers=spec.min_layers - 1, feature_dim=8)


def test_register():
    cls = make_class()
    assert register_interface("mine", paper="P", min_layers=2, looks_across_time=True)(cls) is cls
    assert get_spec("mine") == registry.InterfaceSpec(
        "mine", cls, "Mine.", "P", min_layers=2, fitted=False, looks_across_time=True
    )
    assert "mine" in list_interfaces()
    assert isinstance(build_interface("mine", **SIZES), cls)


def test_a_name_is_given_once():
    register_interface("mine")(make_class())
    with pytest.raises(ValueError, match="Two interfaces have the name 'mine': mine:Mine and other:Mine"):
        register_interface("mine")(make_class(module="other"))
    again = make_class()
    register_interface("mine")(again)  # the same class of a module that was loaded again
    assert get_spec("mine").cls is again


@pytest.mark.parametrize("name", ["", "a:b", "a-b", "a b", 3, None])
def test_impossible_names(name):
    with pytest.raises(ValueError, match="must be letters, digits and '_'"):
        register_interface(name)(make_class())


@pytest.mark.parametrize("cls", [int, list_interfaces, "WeightedSum"])
def test_only_interfaces_are_registered(cls):
    with pytest.raises(ValueError, match="must be a subclass of s3prl_interfaces"):
        register_interface("mine")(cls)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"Unknown interface 'hconf'\. Did you mean 'hconv'\? Possible: cls_"):
        build_interface("hconf", **SIZES)
    with pytest.raises(ValueError, match=r"Unknown interface 'zzz'\. Possible: cls_pooling, concat, "):
        build_interface("zzz", **SIZES)
    with pytest.raises(ValueError, match="must be a string, but is 3"):
        build_interface(3, **SIZES)


def test_unknown_option():
    message = (
        "Unknown option of interface 'hconv': 'kernal_size'. Did you mean 'kernel_size'? "
        "Possible: kernel_size=5, stride=3, padding=None, normalize=False."
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        build_interface("hconv", **SIZES, kernal_size=3)
    assert str(caught.value) == message
    with pytest.raises(ValueError, match=r"Unknown option of interface 'weighted_sum': 'x'\. Possible: normal"):
        build_interface("weighted_sum", **SIZES, x=1)


def test_options():
    assert interface_options("hconv") == {"kernel_size": 5, "stride": 3, "padding": None, "normalize": False}

    class Needy(WeightedSum):
        """Needs an option."""

        def __init__(self, num_layers, feature_dim, *, width, **others):
            super().__init__(num_layers, feature_dim)
            self.others = {"width": width, **others}

    register_interface("needy")(Needy)
    assert interface_options("needy") == {"width": inspect.Parameter.empty}
    with pytest.raises(ValueError, match="'needy' needs the option 'width'"):
        build_interface("needy", **SIZES)
    assert build_interface("needy", **SIZES, width=1, more=2).others == {"width": 1, "more": 2}


def test_class_of_a_module():
    interface = build_interface("tests.interfaces.contract_plugin:MaskedContext", **SIZES, gain=2.0)
    assert interface.output_dim == 16
    assert interface.gain.item() == 2.0
    spec = get_spec("tests.interfaces.contract_plugin:MaskedContext")
    assert spec.name == "tests.interfaces.contract_plugin:MaskedContext"
    assert spec.description.startswith("Beside the mean")
    # A class that was registered keeps what was said of it then.
    assert get_spec("s3prl_interfaces.interfaces:PCAConcat") == get_spec("pca_concat")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Class", "module 'no_such_module' cannot be imported"),
        (":Class", "module '' cannot be imported"),
        (".relative:Class", "module '.relative' cannot be imported"),
        (
            "tests.interfaces.contract_plugin:MaskedContex",
            r"'MaskedContex'\. Did you mean 'MaskedContext'\? Possible: ",
        ),
        ("tests.interfaces.contract_plugin:", "Unknown class in 'tests.interfaces.contract_plugin': ''"),
        (
            "tests.interfaces.contract_plugin:NotAnInterface",
            "must be a subclass of s3prl_interfaces.interfaces.base:Interface",
        ),
    ],
)
def test_class_that_cannot_be_used(name, message):
    with pytest.raises(ValueError, match=message):
        build_interface(name, **SIZES)


def test_plugins(install_plugin):
    install_plugin(
        "plugin_one",
        SOURCE,
        plugged="plugin_one:First",
        twice="plugin_one:First",
        weighted_sum="plugin_one:First",
        wrong="plugin_one:Wrong",
        missing="plugin_one:Nothing",
    )
    install_plugin("plugin_two", SOURCE, twice="plugin_two:First", shared="plugin_two:Second")
    install_plugin("plugin_three", "import no_such_module", broken="plugin_three:First")

    names = list_interfaces()  # loads nothing, so that a broken one breaks only itself
    assert {"plugged", "twice", "shared", "wrong", "missing", "broken"} <= set(names)
    assert names.count("weighted_sum") == 1
    assert "plugin_three" not in sys.modules
    assert type(build_interface("plugged", **SIZES)).__module__ == "plugin_one"
    assert get_spec("plugged").description == "The first."
    assert type(build_interface("hconv", **SIZES)).__module__ == "s3prl_interfaces.interfaces.hconv"
    with pytest.raises(ValueError, match=r"name 'twice': plugin_(one|two):First and plugin_(one|two):First"):
        build_interface("twice", **SIZES)
    with pytest.raises(ValueError, match=r"'weighted_sum': .*weighted_sum:WeightedSum and plugin_one:First"):
        build_interface("weighted_sum", **SIZES)
    with pytest.raises(ValueError, match="must be a subclass of"):
        build_interface("wrong", **SIZES)
    for name, module in (("missing", "one"), ("broken", "three")):
        with pytest.raises(ImportError, match=f"'{name}' .*installed by plugin_{module}-dist.* cannot be imported"):
            build_interface(name, **SIZES)
    with pytest.raises(ValueError, match="Did you mean 'plugged'"):
        build_interface("pluged", **SIZES)


def test_a_registered_plugin_is_one_interface(install_plugin):
    source = SOURCE + "from s3prl_interfaces import register_interface\nregister_interface('both', fitted=True)(First)"
    install_plugin("plugin_four", source, both="plugin_four:First")
    assert get_spec("both").fitted  # as it said itself, when its entry point was loaded
    assert get_spec("both").fitted  # and once more, when it is both registered and installed


def test_the_package_is_light():
    """Importing the package must not import PyTorch, and the interfaces must not import S3PRL."""
    code = (
        "import sys, s3prl_interfaces; assert 'torch' not in sys.modules; "
        "s3prl_interfaces.build_interface; assert 'torch' in sys.modules; "
        "ours = [m for m in sys.modules if m.startswith(('s3prl.', 's3prl_interfaces.'))]; "
        "assert all(m.startswith('s3prl_interfaces.interfaces') for m in ours), ours"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_exports_what_it_says():
    assert s3prl_interfaces.__version__ == "0.1.0"
    for name in s3prl_interfaces.__all__:
        assert getattr(s3prl_interfaces, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = s3prl_interfaces.nothing
