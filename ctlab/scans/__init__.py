"""Read, write and process scans as volumes in Hounsfield units with their geometry. Input: DICOM, NIfTI. Output: volumes, slices, surfaces."""
