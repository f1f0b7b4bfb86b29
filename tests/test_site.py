"""The site in a real browser: everything loads from the disk, nothing fails, search finds."""

import functools
import http.server
import threading

import pytest


@pytest.fixture(scope='module')
def site(root, ctlab):
    page = root / 'reports' / 'site' / 'index.html'
    if not page.exists():
        assert ctlab('site').returncode == 0
    return page.parent


def links(site):
    """(page, target) of every link and picture inside the site, as a browser would find them."""
    from html.parser import HTMLParser

    class Targets(HTMLParser):
        def handle_starttag(self, tag, attributes):
            self.found += [v.partition('#')[0].partition('?')[0] for k, v in attributes if k in ('href', 'src') and v]

    for page in site.rglob('*.html'):
        parser = Targets()
        parser.found = []
        parser.feed(page.read_text())
        for target in parser.found:
            if target and not target.startswith(('mailto:', 'data:', 'javascript:')):
                yield page, target


def test_every_internal_link_leads_somewhere(site):
    missing = {
        (p.relative_to(site).as_posix(), t)
        for p, t in links(site)
        if not t.startswith(('http:', 'https:')) and not (p.parent / t).exists()
    }
    assert not missing


def test_tables_of_the_reports_are_tables(site):
    page = (site / '15_results.html').read_text()
    assert 'published AUC-ROC</p></th>' in page and '|—|' not in page and '|---|' not in page


def test_no_script_style_font_or_picture_comes_from_outside(site):
    import re

    for page in site.rglob('*.html'):
        for tag in re.findall(r'<(?:script|link|img|iframe)[^>]*>', page.read_text()):
            assert not re.search(r'(?:src|href)="(?:https?:)?//', tag) or 'rel="canonical"' in tag, (page.name, tag)


def test_pages_in_a_browser(site, browser, shots):
    server = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0),
        functools.partial(
            type('Quiet', (http.server.SimpleHTTPRequestHandler,), {'log_message': lambda *_: None}),
            directory=str(site),
        ),
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base, wrong = f'http://127.0.0.1:{server.server_port}/', []
    page = browser.new_page(viewport={'width': 1280, 'height': 900})
    page.on('console', lambda m: wrong.append(m.text) if m.type == 'error' else None)
    page.on(
        'requestfailed', lambda r: wrong.append(f'{r.failure} {r.url}') if 'ERR_ABORTED' not in str(r.failure) else None
    )  # leaving a page ends what the browser fetched ahead
    page.on('response', lambda r: wrong.append(f'{r.status} {r.url}') if r.status >= 400 else None)
    for name in (
        'index.html',
        '03_approach1.html',
        '00_eda.html',
        'lib/phantoms/05_gallery.html',
        'api/judge.metrics.html',
    ):
        page.goto(base + name)
        page.wait_for_load_state('networkidle')
        page.screenshot(path=str(shots / f'{name.replace("/", "-")[:-5]}.png'), full_page=False)
        pictures = page.eval_on_selector_all(
            'main img, article img', 'all => all.map(i => i.complete && i.naturalWidth > 50)'
        )
        assert all(pictures), name
        if name.startswith(('0', 'lib/phantoms')):
            assert pictures, f'{name} shows no figure'
        sideways = page.eval_on_selector_all(
            '.cell_output table', 'all => all.filter(t => t.scrollWidth > t.clientWidth + 1).length'
        )
        assert sideways == 0, f'{name}: a table at 1280 pixels hides columns'
    page.goto(base + '15_results.html')
    wide = page.eval_on_selector_all(
        'table', 'all => all.map(t => [t.scrollWidth - t.clientWidth, t.getBoundingClientRect().right - innerWidth])'
    )
    assert wide and max(max(w) for w in wide) <= 1, 'the widest tables show all columns at 1280 pixels'
    page.goto(base + '03_approach1.html')
    cells = page.locator('details.hide')
    assert cells.count() > 5 and not page.locator('details.hide[open]').count(), 'code of a study is folded'
    cells.first.locator('summary').click()
    assert page.locator('details.hide[open]').count() == 1
    page.get_by_role('button', name='Show all code').click()
    assert page.locator('details.hide[open]').count() == cells.count()
    assert page.locator('table:has-text("n_folds")').count() == 1, 'parameters are a table'
    assert not page.get_by_text('from ctlab.core.settings import Settings', exact=True).count()
    page.goto(base + 'lib/judge/00_metrics.html')
    assert not page.locator('details.hide').count(), 'code of the library is open'
    figure = page.goto(base + '03_approach1.html') and page.locator('.cell_output img').first
    figure.scroll_into_view_if_needed()
    figure.screenshot(path=str(shots / 'figure.png'))
    page.goto(base + 'search.html?q=hounsfield')
    page.wait_for_selector('#search-results li', timeout=20_000)
    page.set_viewport_size({'width': 390, 'height': 800})
    page.goto(base + 'index.html')
    assert page.evaluate('document.documentElement.scrollWidth') <= 400  # a phone need not scroll sideways
    page.screenshot(path=str(shots / 'phone.png'))
    server.shutdown()
    assert not wrong, wrong[:5]
