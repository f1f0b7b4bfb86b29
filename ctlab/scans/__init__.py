"""Files become volumes in Hounsfield units that know where they are in the patient. Comes in: DICOM, NIfTI. Goes out: volumes, slices, surfaces."""
