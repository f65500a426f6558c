"""Documents of several hosts as one table and one document."""

import json
from importlib.resources import files

import fastjsonschema
import pytest

from edgenet.board.doctor import examine
from edgenet.board.tree import open_tree
from edgenet.errors import BadRecord
from edgenet.measure.evaluate import evaluate
from edgenet.measure.quality import pictures_for
from edgenet.measure.verify import verify
from edgenet.report.doctor import doctor_document
from edgenet.report.hosts import HostResult, hosts_document, hosts_text
from edgenet.report.reading import parse_document
from edgenet.report.record import evaluation_document
from edgenet.report.saving import save_document
from edgenet.report.verification import verification_document

COMMAND = ["edgenet", "verify", "bundle", "--host", "pi5"]


def result(host, **fields):
    return HostResult(**{"host": host, "status": 0, **fields})


@pytest.fixture(scope="module")
def evaluation(small_bundle):
    artifacts = small_bundle.select(("litert",), ())
    found = evaluate(small_bundle, pictures_for(small_bundle).draw(30, seed=1), artifacts)
    return evaluation_document(small_bundle, found, command=COMMAND, threads=1)


@pytest.fixture
def stored(evaluation, tmp_path):
    """Return a function that stores the evaluation, changed, and gives a host's result."""

    def store(host, change=lambda document: None):
        document = json.loads(json.dumps(evaluation))
        change(document)
        path = tmp_path / f"{host}.json"
        save_document(document, path)
        return result(host, record=path, document=path.read_bytes())

    return store


def wrong_once(document):
    """Let one artefact find another class on one picture."""
    top = document["records"][0]["predictions"][3]["top5"]
    top[0], top[1] = top[1], top[0]


def test_evaluations_stand_side_by_side(stored):
    text = hosts_text([stored("pi4"), stored("pi5", wrong_once)])
    table, notes, *_ = text.split("\n\n")
    rows = [line.split() for line in table.splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        [host, "litert", precision]
        for precision in ("float32", "float16", "int8")
        for host in ("pi4", "pi5")
    ]
    same = [line for line in notes.splitlines() if "same best class" in line]
    assert sorted(line.rpartition(" on ")[2] for line in same) == [
        "29 of 30 images",
        "30 of 30 images",
        "30 of 30 images",
    ]


def test_one_host_alone_agrees_with_nobody(stored):
    assert "same best class" not in hosts_text([stored("pi5")])


def test_a_table_and_those_that_dropped_out(stored):
    lost = result("pi4", status=None, failure="pi4: the connection was lost")
    stopped = result("pi3", status=130)
    text = hosts_text([lost, stored("pi5"), stopped, result("pi2", status=1)])
    assert text.splitlines()[-3:] == [
        "pi4: FAILED: pi4: the connection was lost",
        "pi3: interrupted",
        "pi2: FAILED with exit code 1; see above",
    ]


def test_nothing_came_at_all():
    lost = result("pi4", status=None, failure="pi4: connection refused")
    assert hosts_text([lost]) == "pi4: FAILED: pi4: connection refused"


def test_verifications(small_bundle):
    artifacts = small_bundle.select(("litert",), ())
    found = verify(small_bundle, artifacts)
    document = verification_document(small_bundle, found, command=COMMAND, threads=1)
    document["artifacts"][1] |= {
        "holds": False,
        "failure": "differs",
        "first_layer": {"layer": "conv_dw_3"},
    }
    text = hosts_text([result("pi5", document=json.dumps(document).encode())])
    rows = text.split("\n\n")[0].splitlines()[2:]
    assert [row.split()[-1] for row in rows] == ["holds", "FAILS", "holds"]
    assert "pi5: litert float16 FAILS: differs\n" in text
    assert "pi5: litert float16: it begins at layer conv_dw_3\n" in text


def test_examinations():
    results = []
    for name in ("pi_4", "orin_nano"):
        with open_tree(name) as machine:
            document = doctor_document(examine(machine, None), source="a tree", command=COMMAND)
        results.append(result(name, document=json.dumps(document).encode()))
    rows = hosts_text(results).split("\n\n")[0].splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["pi_4", "orin_nano"]
    assert "Raspberry Pi 4" in rows[0]


def test_the_document(stored, evaluation):
    lost = result("pi4", status=None, failure="pi4: the connection was lost")
    document = hosts_document([lost, stored("pi5")], command=COMMAND)
    schema = (files("edgenet.schemas") / "hosts.schema.json").read_bytes()
    fastjsonschema.compile(json.loads(schema))(document)
    pi4, pi5 = document["hosts"]
    assert pi4["document"] is None
    assert pi4["document_reason"] == "pi4: the connection was lost"
    assert pi5["document"] == evaluation


def newer(document):
    document["schema_version"] = "2.0"


def of_the_future(document):
    document["kind"] = "dream"


def without_records(document):
    del document["records"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (newer, "schema 2.0 is not the 1.x that this edgenet reads; upgrade edgenet"),
        (of_the_future, "'dream'"),
        (without_records, "is damaged"),
    ],
)
def test_a_document_that_is_not_read(stored, change, says):
    bad = stored("pi5", change)
    for report in (hosts_text, lambda results: hosts_document(results, command=COMMAND)):
        with pytest.raises(BadRecord) as error:
            report([bad])
        assert says in str(error.value)
    with pytest.raises(BadRecord, match=r"^pi5: "):
        parse_document(bad.document[:-3], origin="pi5")
