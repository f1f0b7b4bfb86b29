"""Exchange DICOM objects: store, node, client, DICOMweb, automatic inference. Input: objects from peers. Output: objects and results."""
