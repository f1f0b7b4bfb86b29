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


@pytest.fixture(scope='module')
def served_site(site):
    """Serve the built site on this machine: its address."""
    quiet = type('Quiet', (http.server.SimpleHTTPRequestHandler,), {'log_message': lambda *_: None})
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()


@pytest.fixture
def site_page(browser):
    """Open a page in a browser; in the end, nothing that it asked for may have failed."""
    page, wrong = browser.new_page(viewport={'width': 1280, 'height': 900}), []
    page.set_default_timeout(120_000)
    page.on('console', lambda m: wrong.append(m.text) if m.type == 'error' else None)
    page.on(
        'requestfailed', lambda r: wrong.append(f'{r.failure} {r.url}') if 'ERR_ABORTED' not in str(r.failure) else None
    )  # leaving a page ends what the browser fetched ahead
    page.on('response', lambda r: wrong.append(f'{r.status} {r.url}') if r.status >= 400 else None)
    yield page
    page.close()
    assert not wrong, wrong[:5]


@pytest.mark.parametrize('name', ['index', '03_approach1', '00_eda', 'lib/phantoms/05_gallery', 'api/judge.metrics'])
def test_a_page_shows_its_figures_and_tables(served_site, site_page, shots, name):
    site_page.goto(f'{served_site}{name}.html')
    site_page.wait_for_load_state('networkidle')
    site_page.screenshot(path=str(shots / f'{name.replace("/", "-")}.png'), full_page=False)
    pictures = site_page.eval_on_selector_all(
        'main img, article img', 'all => all.map(i => i.complete && i.naturalWidth > 50)'
    )
    assert all(pictures)
    if name.startswith(('0', 'lib/phantoms')):
        assert pictures, 'it shows no figure'
    sideways = site_page.eval_on_selector_all(
        '.cell_output table', 'all => all.filter(t => t.scrollWidth > t.clientWidth + 1).length'
    )
    assert sideways == 0, 'a table at 1280 pixels hides columns'


def test_the_widest_tables_show_all_columns(served_site, site_page):
    site_page.goto(served_site + '15_results.html')
    wide = site_page.eval_on_selector_all(
        'table', 'all => all.map(t => [t.scrollWidth - t.clientWidth, t.getBoundingClientRect().right - innerWidth])'
    )
    assert wide and max(max(w) for w in wide) <= 1, 'at 1280 pixels'


def test_code_of_a_study_is_folded(served_site, site_page, shots):
    page = site_page
    page.goto(served_site + '03_approach1.html')
    cells = page.locator('details.hide')
    assert cells.count() > 5 and not page.locator('details.hide[open]').count()
    cells.first.locator('summary').click()
    assert page.locator('details.hide[open]').count() == 1
    page.get_by_role('button', name='Show all code').click()
    assert page.locator('details.hide[open]').count() == cells.count()
    assert page.locator('table:has-text("n_folds")').count() == 1, 'parameters are a table'
    assert not page.get_by_text('from ctlab.core.settings import Settings', exact=True).count()
    figure = page.locator('.cell_output img').first
    figure.scroll_into_view_if_needed()
    figure.screenshot(path=str(shots / 'figure.png'))
    page.goto(served_site + 'lib/judge/00_metrics.html')
    assert not page.locator('details.hide').count(), 'code of the library is open'


def test_search_and_a_phone(served_site, site_page, shots):
    site_page.goto(served_site + 'search.html?q=hounsfield')
    site_page.wait_for_selector('#search-results li', timeout=120_000)
    site_page.set_viewport_size({'width': 390, 'height': 800})
    site_page.goto(served_site + 'index.html')
    assert site_page.evaluate('document.documentElement.scrollWidth') <= 400, 'a phone need not scroll sideways'
    site_page.screenshot(path=str(shots / 'phone.png'))
