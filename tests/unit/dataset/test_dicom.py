import numpy as np
import pytest
from PIL import Image

from xray_vqa.core.images import read_image
from xray_vqa.dataset.importers import SourceFolder, find_importer
from xray_vqa.dataset.importers.dicom import DicomImporter
from xray_vqa.dataset.importing import ImportOptions, import_source
from xray_vqa.dataset.layout import annotated_categories, read_split

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")

DX = "1.2.840.10008.5.1.4.1.1.1.1"
DICOS_DX = "1.2.840.10008.5.1.4.1.1.501.2"
RAMP = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (48, 1))


def write(path, pixels, *, bits=12, uid=DX, photometric="MONOCHROME2", **tags):
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = uid, ExplicitVRLittleEndian
    file = pydicom.Dataset()
    file.file_meta = meta
    file.SOPClassUID, file.SOPInstanceUID, file.StudyInstanceUID = uid, generate_uid(), "1.2.3"
    file.Modality, file.Manufacturer, file.PatientName = "DX", "Scanner Works", "Doe^Jane"
    colours = 3 if photometric == "RGB" else 1
    frames = pixels.shape[0] if pixels.ndim == (4 if colours == 3 else 3) else 1
    file.Rows, file.Columns = pixels.shape[-3:-1] if colours == 3 else pixels.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = colours, photometric
    file.BitsAllocated, file.BitsStored, file.HighBit = pixels.dtype.itemsize * 8, bits, bits - 1
    file.PixelRepresentation, file.PlanarConfiguration = 0, 0
    if frames > 1:
        file.NumberOfFrames = frames
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, file, enforce_file_format=True)


def bring_in(folder, tmp_path):
    source = DicomImporter().read(SourceFolder(folder, tmp_path / "out/.unpacked"))
    report = import_source(source, tmp_path / "out", ImportOptions(test_share=0))
    records = read_split(tmp_path / "out", "train").records
    return records, report, [np.asarray(read_image(tmp_path / "out" / record.image_path)) for record in records]


def test_twelve_bits_are_laid_over_all_of_black_and_white(tmp_path):
    write(tmp_path / "dx/a.dcm", RAMP)
    write(tmp_path / "dx/noext", 4095 - RAMP, uid=DICOS_DX, photometric="MONOCHROME1")
    assert find_importer(SourceFolder(tmp_path / "dx")).name == "dicom"
    records, report, (first, second) = bring_in(tmp_path / "dx", tmp_path)
    assert [record.original_name for record in records] == ["a.dcm", "noext"]
    assert (first[0, 0, 0], first[0, -1, 0]) == (0, 255)
    assert np.array_equal(first, second)  # the same bag, black and white the other way round
    with Image.open(tmp_path / "out" / records[0].image_path) as stored:
        assert np.array_equal(np.asarray(stored).astype(int) // 16, RAMP * 65535.0 / 4095 // 16)
    assert report.faults == []


def test_nothing_is_taken_as_annotated_and_nobodys_name_is_kept(tmp_path):
    write(tmp_path / "dx/a.dcm", RAMP)
    records, _, _ = bring_in(tmp_path / "dx", tmp_path)
    assert annotated_categories(tmp_path / "out") == ()
    assert records[0].factors == {"modality": "DX", "manufacturer": "Scanner Works"}
    assert b"Doe" not in b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_a_window_is_used_where_the_file_has_one(tmp_path):
    write(tmp_path / "dx/a.dcm", RAMP, WindowCenter=1024, WindowWidth=2048)
    _, _, (image,) = bring_in(tmp_path / "dx", tmp_path)
    assert (image[0, 0, 0], image[0, 40, 0], image[0, -1, 0]) == (0, 255, 255)


def test_frames_are_views_of_one_bag(tmp_path):
    write(tmp_path / "dx/a.dcm", np.stack([RAMP, RAMP[:, ::-1]]))
    records, _, _ = bring_in(tmp_path / "dx", tmp_path)
    assert [(r.original_name, r.group, r.factors["view"]) for r in records] == [
        ("a.dcm#0", "1.2.3", 0), ("a.dcm#1", "1.2.3", 1),
    ]  # fmt: skip


def test_colour_pictures_keep_their_colours(tmp_path):
    colours = np.zeros((48, 64, 3), np.uint8)
    colours[..., 1] = 200
    write(tmp_path / "dx/a.dcm", colours, bits=8, photometric="RGB")
    _, _, (image,) = bring_in(tmp_path / "dx", tmp_path)
    assert image[5, 5].tolist() == [0, 200, 0]


def test_what_is_no_projection_image_is_named_and_the_rest_is_read(tmp_path):
    write(tmp_path / "dx/a.dcm", RAMP)
    write(tmp_path / "dx/ct.dcm", RAMP, uid="1.2.840.10008.5.1.4.1.1.501.1")
    write(tmp_path / "dx/huge.dcm", np.zeros((17, 48, 64), np.uint16))
    whole = (tmp_path / "dx/a.dcm").read_bytes()
    (tmp_path / "dx/cut.dcm").write_bytes(whole[:-500])
    (tmp_path / "dx/report.dcm").write_bytes(whole.replace(DX.encode(), b"1.2.840.10008.5.1.4.1.1.50"))
    records, report, _ = bring_in(tmp_path / "dx", tmp_path)
    lines = "\n".join(map(str, report.faults))
    assert "ct.dcm: is a DICOS CT volume" in lines
    assert "huge.dcm: has 17 frames of 64x48, more than is read" in lines
    assert "cut.dcm: cannot be read as an image" in lines
    assert "a.dcm" in [record.original_name for record in records]


def test_a_dark_picture_without_a_window_is_said_to_be_dark(tmp_path):
    write(tmp_path / "dx/a.dcm", RAMP, bits=16)
    _, report, _ = bring_in(tmp_path / "dx", tmp_path)
    assert any("it is dark" in str(notice) for notice in report.notices)
