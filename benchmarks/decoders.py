"""Decode slices of 512² in each syntax by every decoder at hand: milliseconds a slice, and who is fastest.

Each opens the file, parses it and hands over the stored values, which must be the same from all. What pydicom decodes
by a named library is called by that library's name.

    python benchmarks/decoders.py [slices]
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before numpy is loaded
warnings.simplefilter('ignore')

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from clocks import note  # noqa: E402
from scans import best, series  # noqa: E402

SYNTAXES = {
    'uncompressed': 'ExplicitVRLittleEndian',
    'RLE lossless': 'RLELossless',
    'JPEG lossless': 'JPEGLosslessProcess14_1',
    'JPEG-LS lossless': 'JPEGLSLossless',
    'JPEG 2000 lossless': 'JPEG2000Lossless',
}  # name -> GDCM's name
PLUGINS = ('pydicom', 'pylibjpeg', 'gdcm', 'pyjpegls')
WHY = {
    'uncompressed': 'the header is checked and the bytes are copied once',
    'RLE lossless': 'the header is checked first',
}
THROUGH_PYDICOM = 'by GDCM, CharLS or OpenJPEG through pydicom, whose checks a hostile file meets first'


def convert(source, target, syntax):
    """Write a file in another transfer syntax with GDCM."""
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read(), source
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change(), syntax
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    assert writer.Write(), target


def ours(paths):
    from ctlab.scans.dicom import read_headers, read_stored_values

    return [read_stored_values(h) for h in read_headers(paths)[0]]


def by_dicomsdl(paths):
    import dicomsdl

    return [dicomsdl.open(str(p)).pixelData(storedvalue=True) for p in paths]


def by_simpleitk(paths):
    import SimpleITK as sitk

    hu = (sitk.GetArrayFromImage(sitk.ReadImage(str(p)))[0] for p in paths)
    return [picture + 1024 for picture in hu]  # these files say an intercept of -1024


def by_plugin(plugin):
    """Build a decoder of pydicom's that uses one library."""

    def decode(paths):
        import pydicom

        found = map(pydicom.dcmread, paths)
        return [
            pydicom.pixels.get_decoder(ds.file_meta.TransferSyntaxUID).as_array(ds, raw=True, decoding_plugin=plugin)[0]
            for ds in found
        ]

    return decode


def decoders(path):
    """Name -> function, of those that read this file."""
    import pydicom

    uid = pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    found = {'ctlab': ours, 'dicomsdl': by_dicomsdl, 'SimpleITK': by_simpleitk}
    there = pydicom.pixels.get_decoder(uid).available_plugins if uid.is_compressed else ()
    return found | {name: by_plugin(name) for name in PLUGINS if name in there}


def measure(paths):
    """Milliseconds a slice by decoder; a decoder that does not read the syntax, or reads it wrong, has none."""
    truth, times = ours(paths), {}
    for name, decode in decoders(paths[0]).items():
        try:
            same = all(map(np.array_equal, decode(paths), truth))
        except Exception as error:
            print(f'    {name}: {str(error)[:90]}')
            continue
        if same:
            times[name] = best(lambda decode=decode: decode(paths), 5) / len(paths) * 1000
        else:
            print(f'    {name}: other values')
    return times


def main(n=24):
    files, rows = sorted(series().iterdir())[100 : 100 + n], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, syntax in SYNTAXES.items():
            paths = [Path(folder) / f'{syntax}-{p.name}' for p in files]
            for source, target in zip(files, paths):
                convert(source, target, syntax)
            rows[name] = times = measure(paths)
            peer = min((d for d in times if d != 'ctlab'), key=times.get)
            note(
                f'decode a slice of 512 x 512, {name}',
                times['ctlab'],
                peer,
                times[peer],
                'ms',
                reason=WHY.get(name, THROUGH_PYDICOM),
            )
    print('milliseconds a slice of 512 x 512, from file to stored values, one core')
    print(pd.DataFrame(rows).T.round(2).to_string(na_rep=''))


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
