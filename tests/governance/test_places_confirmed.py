"""Places of settings.toml, where an approval key is enrolled: what somebody writes there is not yet in force."""

from __future__ import annotations

from speciate.governance.authorization import settings_differences, settings_snapshot, stricter_settings
from speciate.settings import Place, Settings


def _settings(**places: str) -> Settings:
    named = {name: Place(kind="slurm", depot=depot, python="python3") for name, depot in places.items()}
    return Settings(executors=named)


def test_a_place_is_in_force_only_as_it_was_confirmed() -> None:
    confirmed = settings_snapshot(_settings(lab="/shared/a"))
    assert settings_differences(_settings(lab="/shared/a"), confirmed) == []
    edited = _settings(lab="/elsewhere", new="/shared/a")
    assert len(settings_differences(edited, confirmed)) == 1
    assert stricter_settings(edited, confirmed).executors == {}
    both = _settings(lab="/shared/a", new="/shared/b")
    assert list(stricter_settings(both, confirmed).executors) == ["lab"]


def test_a_confirmation_from_before_there_were_places_confirmed_none() -> None:
    before = {name: value for name, value in settings_snapshot(Settings()).items() if name != "executors"}
    assert settings_differences(Settings(), before) == []
    assert len(settings_differences(_settings(lab="/shared/a"), before)) == 1
    assert stricter_settings(_settings(lab="/shared/a"), before).executors == {}
