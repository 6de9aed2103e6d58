"""Small DICOM files for tests."""

import numpy as np


def write_dicom(path, pixels: np.ndarray) -> None:
    """Write 12-bit greyscale frames, (height, width) or (frames, height, width) uint16."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    uid = "1.2.840.10008.5.1.4.1.1.1.1"
    file = pydicom.Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.MediaStorageSOPClassUID, file.file_meta.TransferSyntaxUID = uid, ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID, file.StudyInstanceUID = uid, generate_uid(), "1.2.3"
    file.Modality, file.SamplesPerPixel, file.PhotometricInterpretation = "DX", 1, "MONOCHROME2"
    file.Rows, file.Columns = pixels.shape[-2:]
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    if pixels.ndim == 3:
        file.NumberOfFrames = len(pixels)
    file.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, file, enforce_file_format=True)
