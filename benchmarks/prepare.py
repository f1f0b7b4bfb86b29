"""Preparing a 300-slice CT (512², 1 mm, RLE lossless) as 60 slices of 256²: ours and its peers, one run, one table.

(a) every slice through pydicom, windowed, resized, one JPEG each: the published way
(b) SimpleITK's series reader, then a resize of every slice
(c) MONAI LoadImage (pydicom reader), Spacing, Resize
(d) the floor: decode the 60 kept slices, nothing else, with the faster of dicomsdl and pylibjpeg-rle
(e) ours: headers, geometry, choice, decode, HU, window, resize
"""

import os
import shutil
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before numpy is loaded
warnings.simplefilter('ignore')

import numpy as np  # noqa: E402
from clocks import note  # noqa: E402
from scans import HOME, best, cohort, series  # noqa: E402


def published(folder, out):
    import pydicom
    from PIL import Image

    for path in sorted(folder.iterdir()):
        ds = pydicom.dcmread(path)
        hu = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        low, high = (
            float(ds.WindowCenter) - float(ds.WindowWidth) / 2,
            float(ds.WindowCenter) + float(ds.WindowWidth) / 2,
        )
        hu = np.clip(hu, low, high)
        grey = (hu - hu.min()) / max(1e-6, hu.max() - hu.min()) * 255
        Image.fromarray(grey.astype(np.uint8)).resize((256, 256), Image.Resampling.BILINEAR).save(
            out / f'{path.stem}.jpg'
        )


def itk(folder):
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    size, spacing = image.GetSize(), image.GetSpacing()
    n = int(size[2] * spacing[2] / 5)
    return sitk.Resample(
        image,
        (256, 256, n),
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        (spacing[0] * size[0] / 256, spacing[1] * size[1] / 256, 5.0),
        image.GetDirection(),
    )


def monai(folder):
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize, ScaleIntensityRange, Spacing

    return Compose(
        [
            LoadImage(reader='PydicomReader', image_only=True),
            EnsureChannelFirst(),
            Spacing((-1, -1, 5.0)),
            Resize((256, 256, -1)),
            ScaleIntensityRange(-150, 250, 0, 1, clip=True),
        ]
    )(str(folder))


def floor(headers):
    """Seconds of the faster decoder; as in preparing, a slice is let go before the next."""
    import dicomsdl

    from ctlab.scans.dicom import read_stored_values  # nothing around pylibjpeg-rle but opening the file

    decoders = (lambda h: dicomsdl.open(h.path).pixelData(storedvalue=True)), read_stored_values
    return min(best(lambda decode=decode: [decode(h).dtype for h in headers], 9) for decode in decoders)


FLOOR = '(d) floor: decode the kept slices'


def main():
    from ctlab.cohort.stacks import StackPreprocessing, make_stack, nearest_slices, prepare
    from ctlab.scans import dicom

    folder = series()
    headers, _ = dicom.read_headers(dicom.list_files(folder))
    found = dicom.series_geometry(headers)
    kept = [headers[found.order[k]] for k in nearest_slices(found.positions, 5.0)]
    with tempfile.TemporaryDirectory() as out:
        seconds = {
            '(a) published: pydicom, one JPEG per slice': best(lambda: published(folder, Path(out))),
            '(b) SimpleITK reader, resample': best(lambda: itk(folder), 2),
            '(c) MONAI LoadImage, Spacing, Resize': best(lambda: monai(folder), 2),
            FLOOR: floor(kept),
            '(e) ctlab': best(lambda: make_stack(folder, StackPreprocessing()), 9),
        }
    ours, least = seconds['(e) ctlab'], seconds[FLOOR]
    peer = min((n for n in seconds if n[1] in 'abc'), key=seconds.get)
    note('prepare a series of 300 slices, RLE', ours, peer[4:], seconds[peer], floor=round(least, 3))
    print(
        f'one series of 300 slices, {sum(p.stat().st_size for p in folder.iterdir()) / 1e6:.0f} MB, one core, best of '
        f'a few runs'
    )
    print(f'{"":<48}{"seconds":>9}{"against ours":>14}')
    for name, value in seconds.items():
        print(f'{name:<48}{value:9.3f}{value / ours:13.1f}×')
    root, work = cohort(40), HOME / 'stacks'

    def all40():
        shutil.rmtree(work, ignore_errors=True)
        prepare(root, work, StackPreprocessing(), workers=2, progress=False)

    total = best(all40, 2)
    print(
        f'40 such series, 2 workers: {total:.1f} s, {total / 40:.3f} s per series, '
        f'{40 * 300 / total:.0f} slices per second'
    )


if __name__ == '__main__':
    main()
