"""A key opens what it was made for until its end, and what is kept of it opens nothing."""

import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.errors import ConfigError
from xray_vqa.serving.access.key_store import KeyStore
from xray_vqa.serving.access.keys import ApiKey, KeyEnds, KeyMade, digest_of, fits, id_of, keys_after, new_secret
from xray_vqa.serving.access.roles import MAY, Permission, Role, permissions_of
from xray_vqa.serving.store.audit import AuditStore

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def key_of(text: str, **changes) -> ApiKey:
    values = {
        "key_id": id_of(text), "digest": digest_of(text), "name": "n", "role": Role.LANE, "scopes": None,
        "lanes": ("L1",), "made_at": T0, "expires_at": T0 + timedelta(days=10), **changes,
    }  # fmt: skip
    return ApiKey(**values)


def test_keys_differ_and_have_256_random_bits():
    made = [new_secret() for _ in range(200)]
    assert len({text for _, text in made}) == len({key_id for key_id, _ in made}) == 200
    assert all(id_of(text) == key_id and len(text.split("_")[2]) * 4 == 256 for key_id, text in made)


@given(st.text() | st.text(string.hexdigits + "xvqa_", max_size=90))
def test_no_other_text_fits_a_key(text):
    _, own = new_secret()
    assert not fits(text, key_of(own))
    assert not fits(text, None)
    assert fits(own, key_of(own))


@given(st.integers(0, 81), st.sampled_from("0123456789abcdefxvq_ \n"))
def test_a_key_with_one_character_changed_does_not_fit(at, character):
    _, own = new_secret()
    changed = own[:at] + character + own[at + 1 :]
    assert fits(changed, key_of(own)) == (changed == own)


@pytest.mark.parametrize(
    "text", ["", "xvqa_", "xvqa_0_0", "xvqa_" + "a" * 12 + "_" + "b" * 64 + "\n", "XVQA_" + "a" * 12]
)
def test_what_has_not_a_keys_form_has_no_id(text):
    assert id_of(text) is None


moments = st.integers(-5, 15).map(lambda days: T0 + timedelta(days=days))
ends = st.lists(st.tuples(moments, st.booleans()), max_size=6)


@given(ends, moments)
def test_a_key_never_comes_back_and_never_lives_longer(ends, now):
    _, text = new_secret()
    key = key_of(text)
    events = [KeyMade(key=key), *(KeyEnds(key_id=key.key_id, at=at, revoked=r, reason="") for at, r in ends)]
    states = [keys_after(events[:count])[key.key_id].state(now) for count in range(1, len(events) + 1)]
    ended = False
    for state in states:
        assert not (ended and state == "valid")
        ended = state != "valid"
    if any(revoked for _, revoked in ends):
        assert states[-1] == "revoked"
    again = [*events, KeyMade(key=key)]  # a record that was written twice
    assert keys_after(again)[key.key_id] == keys_after(events)[key.key_id]


def test_the_end_of_an_unknown_key_is_nothing():
    assert keys_after([KeyEnds(key_id="x", at=T0, revoked=True, reason="")]) == {}


@given(st.sets(st.sampled_from(Role)), st.none() | st.sets(st.sampled_from(Permission)))
def test_scopes_only_take_away(roles, scopes):
    narrowed = permissions_of(roles, scopes)
    assert narrowed <= permissions_of(roles)
    assert scopes is None or narrowed <= scopes


def test_each_permission_is_somebodys_and_without_a_role_there_is_none():
    assert set(MAY) == set(Permission)
    assert all(MAY.values())
    assert permissions_of([]) == frozenset()


def test_who_administers_sees_no_inspection_and_who_audits_changes_none():
    sees = {Permission.INSPECT, Permission.ASK, Permission.READ}
    changes = {Permission.INSPECT, Permission.FEEDBACK, Permission.OVERRIDE, Permission.STOP}
    assert not sees & permissions_of([Role.ADMIN])
    assert not changes & permissions_of([Role.AUDITOR])


@pytest.fixture
def store(tmp_path):
    audit = AuditStore(f"sqlite:///{tmp_path}/audit.sqlite3")
    yield KeyStore(audit)
    audit.close()


def test_a_made_key_is_found_by_its_id_with_all_that_it_was_made_with(store):
    key, text = store.make("scanner", Role.OFFICER, lanes=["A", "B"], scopes=[Permission.READ], lasts=timedelta(days=3))
    assert store.keys() == {id_of(text): key}
    assert fits(text, store.keys()[key.key_id])
    assert (key.lanes, key.scopes, key.expires_at - key.made_at) == (("A", "B"), (Permission.READ,), timedelta(days=3))
    assert key.principal().permissions == {Permission.READ}


@pytest.mark.parametrize(
    ("role", "changes", "message"),
    [
        (Role.LANE, {"lanes": None}, "name one with --lane"),
        (
            Role.LANE,
            {"scopes": [Permission.OVERRIDE]},
            "the role lane has no override; its scopes are inspect, describe",
        ),
        (Role.ADMIN, {"scopes": [Permission.METRICS, Permission.INSPECT]}, "the role admin has no inspect"),
    ],
)
def test_a_key_that_could_not_be_used_is_not_made(store, role, changes, message):
    with pytest.raises(ConfigError, match=message):
        store.make("x", role, **{"lanes": ["A"], "lasts": timedelta(days=1), **changes})
    assert store.keys() == {}


def test_a_rotated_key_hands_over_what_it_may_do(store):
    old, _ = store.make("scanner", Role.LANE, lanes=["A"], lasts=timedelta(days=3))
    new, _ = store.rotate(old.key_id, lasts=timedelta(days=30), overlap=timedelta(hours=2))
    assert (new.name, new.role, new.lanes, new.replaces) == (old.name, old.role, old.lanes, old.key_id)
    now = datetime.now(UTC)
    assert store.keys()[old.key_id].state(now + timedelta(hours=1)) == "valid"
    assert store.keys()[old.key_id].state(now + timedelta(hours=3)) == "expired"


def test_an_overlap_does_not_lengthen_a_life(store):
    old, _ = store.make("scanner", Role.LANE, lanes=["A"], lasts=timedelta(hours=1))
    store.rotate(old.key_id, lasts=timedelta(days=30), overlap=timedelta(hours=2))
    assert store.keys()[old.key_id].expires_at == old.expires_at


def test_what_has_ended_or_never_was_cannot_be_ended(store):
    key, _ = store.make("scanner", Role.LANE, lanes=["A"], lasts=timedelta(hours=1))
    store.revoke(key.key_id, "lost")
    with pytest.raises(ConfigError, match="is revoked already"):
        store.revoke(key.key_id, "again")
    with pytest.raises(ConfigError, match="is revoked already"):
        store.rotate(key.key_id, lasts=timedelta(days=1), overlap=timedelta(0))
    with pytest.raises(ConfigError, match="no key 'abc'; `xray-vqa keys list` names them"):
        store.revoke("abc", "")
