
'use strict';
// Everything is put into the page as text, never as markup: names and words come from nodes.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const run = data.document;
  const total = Math.max(data.total, 1);
  const ROWS = 100;
  const PHASES = {
    connect: 'connect', check: 'ask the runtime', pull: 'pull', stall: 'nothing arrives', run: 'run the command',
    queue: 'wait for a turn at the registry, or for the preflight', wait: 'wait for the next attempt', failure: 'attempt failed',
  };
  const STANDINGS = { ok: 'ready', failed: 'failed', 'not-run': 'not run', missing: 'without an image' };

  const byId = (id) => document.getElementById(id);
  const put = (parent, ...children) => {
    parent.replaceChildren(...children.filter((child) => child !== null && child !== ''));
    return parent;
  };
  const make = (name, attributes, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    return put(element, ...children);
  };
  const draw = (name, attributes, ...children) => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const press = (text, attributes, action) => {
    const button = make('button', { type: 'button', ...attributes }, text);
    button.addEventListener('click', action);
    return button;
  };

  const count = (number, noun) => `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;
  // All times of a page have one form, which the run's length decides: seconds, or hours:minutes:seconds.
  const isLong = total >= 600000;
  const clock = (seconds) => {
    const whole = Math.round(seconds);
    const parts = [Math.floor(whole / 60) % 60, whole % 60];
    if (total >= 3600000) parts.unshift(Math.floor(whole / 3600));
    return parts.map((part, place) => (place ? String(part).padStart(2, '0') : part)).join(':');
  };
  const time = (seconds) => (isLong ? clock(seconds) : `${seconds.toFixed(1)} s`);
  // Round times from 0 up to at most `end` seconds, no more than so many steps.
  const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200, 86400];
  const ticks = (end, most) => {
    const step = STEPS.find((one) => end / one <= most) || 86400 * Math.ceil(end / most / 86400);
    const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
    const label = (seconds) => (isLong ? clock(seconds) : `${seconds.toFixed(digits)} s`);
    const number = Math.floor(end / step + 1e-9);
    return { step, all: Array.from({ length: number + 1 }, (_, place) => [place * step, label(place * step)]) };
  };
  // A command, and a button that puts it into the clipboard.
  const command = (text) => {
    const code = make('code', {}, text);
    const button = press('Copy', { class: 'copy', 'aria-label': 'copy the command' }, async () => {
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        // Without the right to write there, the old way: what is selected is copied.
        getSelection().selectAllChildren(code);
        document.execCommand('copy');
      }
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = 'Copy'; }, 2000);
    });
    return [code, ' ', button];
  };
  const size = (bytes) => {
    const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
    let unit = 0;
    while (bytes >= 999.95 && unit < units.length - 1) [bytes, unit] = [bytes / 1000, unit + 1];
    return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
  };
  const sum = (numbers) => numbers.reduce((all, number) => all + number, 0);

  // An attempt that only lost sight of a pull that goes on by itself is no try of its own: src/model/tries.rs.
  const tries = ({ attempts }) => {
    let [ended, goesOn] = [0, false];
    for (const { failure } of attempts) {
      const lost = failure && failure.kind === 'connection-lost' && ['inspect', 'pull', 'verify'].includes(failure.stage);
      goesOn = run.command === 'pull' && (lost || goesOn && failure && ['connection-lost', 'unreachable'].includes(failure.kind));
      ended += goesOn ? 0 : 1;
    }
    return ended + (goesOn ? 1 : 0);
  };

  const ending = ({ status, exit, signal }) => {
    if (status === 'ran' && exit !== 0) return signal ? `signal ${signal}` : `exit status ${exit}`;
    return status.replace('-', ' ');
  };

  const nodes = run.nodes.map((node, index) => {
    const { standing, spans, failures } = data.nodes[index];
    const words = new Map();
    for (const one of node.outcomes) words.set(ending(one), (words.get(ending(one)) || 0) + 1);
    const said = node.outcomes.flatMap((outcome) => [
      outcome.status, outcome.digest, outcome.via_note, outcome.stdout, outcome.stderr,
      ...[outcome, ...outcome.attempts].flatMap(({ failure }) => (failure ? [failure.kind, failure.detail] : [])),
    ]);
    const only = words.size === 1;
    const kinds = new Set(node.outcomes.flatMap((outcome) => (outcome.status === 'failed' ? [outcome.failure.kind] : [])));
    return {
      ...node, index, standing, spans, failures,
      word: [...words].map(([word, times]) => `${only ? '' : `${times} `}${word}`).join(', '),
      kinds: [...kinds].join(', '),
      bytes: sum(node.outcomes.map((outcome) => outcome.arrived || 0)),
      seconds: Math.max(0, ...node.outcomes.map((outcome) => outcome.seconds)),
      attempts: sum(node.outcomes.map(tries)),
      begin: spans.length ? spans[0][1] : 0,
      end: Math.max(0, ...spans.map(([, , to]) => to), ...failures),
      text: [node.name, node.address, node.user, node.runtime, ...said].filter(Boolean).join('\n').toLowerCase(),
    };
  });

  // The verdict.
  const counts = run.summary;
  const ready = counts.ok === counts.nodes && !run.disagreements;
  const tiles = [
    ['ready', counts.ok], ['failed', counts.failed], ['not run', counts.not_run],
    ['pulled', counts.pulled], [run.command === 'pull' ? 'present before' : 'present', counts.present], ['missing', counts.missing], ['ran', counts.ran],
    [run.arrived_unseen ? `arrived, not counted on ${count(run.arrived_unseen, 'node')}` : 'arrived', run.arrived, size],
  ].filter(([, value], place) => place < 3 || value);
  const slowest = nodes.reduce((a, b) => (b.seconds > a.seconds ? b : a));
  document.title = `${ready ? 'READY' : 'NOT READY'} ${counts.ok} of ${counts.nodes}: prepull ${run.command} ${run.run}`;
  const entitle = (id, text, number) => { byId(id).textContent = `${text} (${number.toLocaleString('en')})`; };
  byId('verdict').classList.toggle('bad', !ready);
  put(byId('verdict'),
    make('h1', {}, make('b', {}, ready ? 'Ready' : 'Not ready'), `: ${counts.ok.toLocaleString('en')} of ${count(counts.nodes, 'node')} ok`),
    make('p', { class: 'quiet' },
      `prepull ${run.command}, run ${run.run}, ${run.started} to ${run.finished} (${time(total / 1000)})` +
      (run.stopped ? `, stopped early: ${run.stopped}` : '')),
    make('ul', { class: 'images' }, ...run.images.map((image) => make('li', {},
      make('code', {}, image.reference), make('span', { class: 'quiet mono' }, image.digest ? ` ${image.digest}` : '')))),
    make('dl', { class: 'tiles' }, ...tiles.map(([name, value, form]) =>
      make('div', {}, make('dt', {}, name), make('dd', {}, form ? form(value) : value.toLocaleString('en')))),
      slowest.seconds > 0 && make('div', {}, make('dt', {}, `slowest: ${slowest.name}`), make('dd', {}, time(slowest.seconds))) || ''),
    !ready && data.resume ? make('p', {}, 'To go on with what is open, and only that: ', ...command(data.resume)) : '');

  if (run.disagreements) {
    byId('disagreements').hidden = false;
    entitle('disagreements-title', 'Different digests', run.disagreements.length);
    put(byId('disagreements-list'), ...run.disagreements.map((one) => make('div', {},
      make('p', {}, make('code', {}, one.image)),
      make('ul', {}, ...one.digests.map(({ digest, nodes: number, names }) => make('li', {},
        make('code', {}, digest), ` on ${count(number, 'node')}: `,
        names.slice(0, 10).join(', ') + (names.length > 10 ? ` and ${names.length - 10} more` : '')))))));
  }

  // What is wrong, by cause.
  byId('failures').hidden = data.groups.length === 0;
  entitle('failures-title', 'What is wrong', data.groups.length);
  entitle('nodes-title', 'Nodes', nodes.length);
  for (const option of byId('status').options) {
    if (option.value) option.textContent += ` (${nodes.filter((node) => node.standing === option.value).length.toLocaleString('en')})`;
  }
  put(byId('groups'), ...data.groups.map((group, number) => {
    // Groups of one kind stand together, and have the advice once.
    const next = data.groups[number + 1];
    const advice = next && next.advice === group.advice ? null : group.advice;
    const names = group.nodes.slice(0, 12).map((index) => nodes[index].name).join(', ');
    const more = group.nodes.length - 12;
    return make('li', { class: group.what.startsWith('not run') ? 'open' : '' },
      make('h3', {}, make('span', {}, group.what),
        press(`show ${count(group.nodes.length, 'node')}`, { class: 'link', 'aria-label': `show ${count(group.nodes.length, 'node')} with ${group.what}` }, () => {
          go({ group: String(number), q: '', status: '', page: '' });
          byId('nodes-title').scrollIntoView();
        })),
      make('p', { class: 'quiet' }, names + (more > 0 ? ` and ${more} more` : '')),
      group.example ? make('pre', {}, group.example) : '',
      advice ? make('p', {}, `What next: ${advice}`) : '');
  }));

  // How the images came, where nodes had another way than their registry, and what there is to say of it.
  const ways = { ssh: 'through SSH', peers: 'from other nodes', mirror: 'through a mirror', registry: 'from the registry' };
  const deliveries = nodes.flatMap(({ name, outcomes }) =>
    outcomes.filter(({ via }) => via).map(({ via, via_note: note }) => ({ name, via, note })));
  const grouped = (list, key) => {
    const all = new Map();
    for (const one of list) all.set(key(one), all.get(key(one)) || []).get(key(one)).push(one.name);
    return all;
  };
  const some = (names) => names.slice(0, 12).join(', ') + (names.length > 12 ? ` and ${names.length - 12} more` : '');
  byId('ways').hidden = deliveries.length === 0;
  put(byId('ways-counts'), [...grouped(deliveries, ({ via }) => via)]
    .map(([via, names]) => `${count(names.length, 'pull')} ${ways[via]}`).join(', '));
  if (run.fan_out) {
    const { nodes: relays, roots, depth, from_source: source, from_peers: peers, image_bytes: bytes, fallbacks } = run.fan_out;
    put(byId('fan-out'), ...[
      ['relays', relays.toLocaleString('en')], [roots === 1 ? 'root' : 'roots', roots.toLocaleString('en')], ['depth', depth],
      [`sent to roots${bytes ? `: ${(source / bytes).toFixed(2)} copies` : ''}`, size(source)],
      ['between nodes', size(peers)], ['got nothing from others', fallbacks.toLocaleString('en')],
    ].map(([name, value]) => make('div', {}, make('dt', {}, name), make('dd', {}, value))));
  }
  const noted = deliveries.filter(({ note }) => note);
  put(byId('ways-notes'), ...[...grouped(noted, ({ via, note }) => `${ways[via]}: ${note}`)]
    .map(([text, names]) => make('li', {}, make('b', {}, some([...new Set(names)])), ` ${text}`)));

  // The course of the run: how many nodes were in which state when.
  const SAMPLES = 240;
  const course = (() => {
    const change = () => new Float64Array(SAMPLES + 2);
    const at = (ms) => Math.min(SAMPLES, Math.ceil((ms / total) * SAMPLES));
    const [ok, failed, work, wait] = [change(), change(), change(), change()];
    for (const node of nodes) {
      if (node.standing === 'ok') ok[at(node.end)] += 1;
      if (node.standing === 'failed') failed[at(node.end)] += 1;
      for (const [phase, from, to] of node.spans) {
        const line = phase === 'wait' || phase === 'queue' ? wait : work;
        line[at(from)] += 1;
        line[at(to)] -= 1;
      }
    }
    return [ok, failed, work, wait].map((line) => {
      let height = 0;
      return Array.from(line.subarray(0, SAMPLES + 1), (step) => (height += step));
    });
  })();
  const AREAS = [['area-ok', 'ready'], ['area-failed', 'failed'], ['area-work', 'at work'], ['area-wait', 'waiting']];
  const swatch = (kind, text) => make('span', {}, draw('svg', { viewBox: '0 0 10 10', 'aria-hidden': 'true' },
    draw('rect', { class: kind, width: 10, height: 10, rx: 2 })), text);
  const legend = (sample) => put(byId('chart-legend'),
    ...AREAS.map(([kind, name], line) => swatch(kind, sample === null ? name : `${course[line][sample]} ${name}`)),
    make('span', {}, sample === null ? '' : `at ${time((sample / SAMPLES) * total / 1000)}`));
  const chart = () => {
    const [width, height, left, bottom] = [Math.max(byId('chart').clientWidth, 320), 192, 44, 22];
    const x = (sample) => left + (sample / SAMPLES) * (width - left - 8);
    const y = (number) => 8 + (1 - number / nodes.length) * (height - bottom - 8);
    const svg = draw('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img',
      'aria-label': `Nodes over time: after ${time(total / 1000)}, ${counts.ok} ready, ${counts.failed} failed, ${counts.not_run} not run` });
    for (const part of [0, 0.5, 1]) {
      const number = Math.round(nodes.length * part);
      svg.append(draw('line', { class: 'grid', x1: left, x2: width - 8, y1: y(number), y2: y(number) }),
        draw('text', { x: left - 6, y: y(number) + 4, 'text-anchor': 'end' }, number.toLocaleString('en')));
    }
    const base = new Array(SAMPLES + 1).fill(0);
    AREAS.forEach(([kind], line) => {
      const under = base.map((number, sample) => `${x(sample).toFixed(1)},${y(number).toFixed(1)}`);
      course[line].forEach((number, sample) => { base[sample] += number; });
      const over = base.map((number, sample) => `${x(sample).toFixed(1)},${y(number).toFixed(1)}`);
      svg.append(draw('polygon', { class: kind, points: [...under, ...over.reverse()].join(' ') }));
    });
    for (const [seconds, label] of ticks(total / 1000, Math.max(2, Math.floor(width / 90))).all) {
      const place = x(Math.min(1, seconds * 1000 / total) * SAMPLES);
      const anchor = seconds === 0 ? 'start' : place > width - 30 ? 'end' : 'middle';
      svg.append(draw('line', { class: 'grid', x1: place, x2: place, y1: height - bottom, y2: height - bottom + 4 }),
        draw('text', { x: place, y: height - 5, 'text-anchor': anchor }, label));
    }
    const cursor = draw('line', { class: 'cursor', y1: 8, y2: height - bottom, visibility: 'hidden' });
    svg.append(cursor);
    svg.addEventListener('pointermove', (event) => {
      const there = (event.clientX - svg.getBoundingClientRect().left - left) / (width - left - 8);
      const sample = Math.max(0, Math.min(SAMPLES, Math.round(there * SAMPLES)));
      for (const [key, value] of [['x1', x(sample)], ['x2', x(sample)], ['visibility', 'visible']]) cursor.setAttribute(key, value);
      legend(sample);
    });
    svg.addEventListener('pointerleave', () => {
      cursor.setAttribute('visibility', 'hidden');
      legend(null);
    });
    put(byId('chart'), svg);
    legend(null);
  };

  // The table, as the address says after its #: q, status, group, sort (with - for downwards), axis, page.
  const byName = new Intl.Collator('en', { numeric: true });
  const COLUMNS = [
    ['name', 'Node'], ['runtime', 'Runtime'], ['status', 'Status'],
    ['attempts', 'Attempts'], ['bytes', 'Arrived'], ['seconds', 'Time'],
  ];
  const ORDER = ['failed', 'missing', 'not-run', 'ok'];
  const compare = {
    name: (a, b) => byName.compare(a.name, b.name),
    runtime: (a, b) => byName.compare(a.runtime || '', b.runtime || ''),
    status: (a, b) => ORDER.indexOf(a.standing) - ORDER.indexOf(b.standing)
      || byName.compare(a.word, b.word) || byName.compare(a.kinds, b.kinds),
    attempts: (a, b) => a.attempts - b.attempts,
    bytes: (a, b) => a.bytes - b.bytes,
    seconds: (a, b) => a.seconds - b.seconds,
  };
  const wanted = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const go = (changes) => {
    const next = Object.entries({ ...wanted(), ...changes }).filter(([, value]) => value !== '');
    history.replaceState(null, '', `#${new URLSearchParams(next)}`);
    table();
  };
  const opened = new Set();

  const longest = Math.max(1, ...nodes.map((node) => node.end - node.begin));

  // The labels above the bars; the bars have lines at the same places.
  const axisOf = (end) => {
    const { step, all } = ticks(end, 4);
    byId('nodes').style.setProperty('--step', `${(step / end) * 100}%`);
    return make('span', { class: 'axis' }, ...all.map(([seconds, label]) => {
      const mark = make('span', {}, label);
      mark.style.left = `${(seconds / end) * 100}%`;
      if (seconds / end > 0.9) mark.classList.add('last');
      return mark;
    }));
  };

  const bar = (node, own) => {
    const [zero, scale] = own ? [node.begin, longest] : [0, total];
    const x = (ms) => (((ms - zero) / scale) * 1000).toFixed(2);
    const told = node.spans.map(([phase, from, to]) => `${PHASES[phase]} ${time((to - from) / 1000)}`).join(', ');
    const svg = draw('svg', { class: 'bar', viewBox: '0 0 1000 20', preserveAspectRatio: 'none', role: 'img', 'aria-label': told || 'never started' });
    for (const [phase, from, to] of node.spans) {
      const thin = phase === 'wait' || phase === 'queue';
      const width = Math.max(((to - from) / scale) * 1000, 0.8).toFixed(2);
      svg.append(draw('rect', { class: phase, x: x(from), y: thin ? 8 : 4, width, height: thin ? 4 : 12 },
        draw('title', {}, `${PHASES[phase]}: ${time((to - from) / 1000)} from ${time(from / 1000)}`)));
    }
    for (const ms of node.failures) {
      svg.append(draw('rect', { class: 'failure', x: Math.min(x(ms), 996), y: 1, width: 4, height: 18 },
        draw('title', {}, `${PHASES.failure} at ${time(ms / 1000)}`)));
    }
    return svg;
  };

  const outcome = (one) => {
    const tries = one.attempts.map((attempt) => make('li', {},
      `${time(attempt.seconds)}: `,
      attempt.failure
        ? make('span', { class: 'mono' }, `${attempt.failure.kind} (${attempt.failure.stage}): ${attempt.failure.detail}`)
        : (one.status === 'not-run' ? 'cancelled' : one.status === 'ran' ? ending(one) : 'success')));
    const facts = [
      one.digest, one.arrived !== undefined && `${size(one.arrived)} arrived`, ways[one.via], time(one.seconds), one.status === 'not-run' && one.failure.detail,
    ].filter(Boolean).join(', ');
    return make('div', { class: 'outcome' },
      one.image ? make('code', {}, one.image) : '', ` ${ending(one)} `, make('span', { class: 'quiet mono' }, facts),
      one.via_note ? make('p', { class: 'quiet', 'aria-label': 'How it came' }, one.via_note) : '',
      tries.length ? make('ol', { 'aria-label': 'Attempts' }, ...tries) : '',
      one.stdout ? make('pre', { 'aria-label': 'Standard output' }, one.stdout) : '',
      one.stderr ? make('pre', { 'aria-label': 'Standard error' }, one.stderr) : '',
      one.truncated ? make('p', { class: 'quiet' }, 'The output was cut.') : '');
  };

  const rows = (node, own) => {
    const open = opened.has(node.index);
    const name = press(node.name, { class: 'name', 'aria-expanded': String(open) }, () => {
      if (!opened.delete(node.index)) opened.add(node.index);
      table();
      const row = document.querySelector(`[data-node="${node.index}"] button`);
      if (row) row.focus();
    });
    const at = node.address.includes(':') ? `[${node.address}]` : node.address;
    const row = make('tr', { 'data-node': node.index, class: open ? 'opened' : '' },
      make('th', { scope: 'row' }, name,
        make('span', { class: 'small' }, `${node.user}@${at}${node.port === 22 ? '' : `:${node.port}`}`)),
      make('td', {}, node.runtime || ''),
      make('td', {}, make('span', { class: `pill ${node.standing}` }, node.word),
        node.kinds ? make('span', { class: 'small' }, node.kinds) : ''),
      make('td', { class: 'number', 'data-label': 'Attempts' }, String(node.attempts)),
      make('td', { class: 'number', 'data-label': 'Arrived' }, node.bytes ? size(node.bytes) : ''),
      make('td', { class: 'number', 'data-label': 'Time' }, time(node.seconds)),
      make('td', { class: 'times' }, bar(node, own)));
    if (!open) return [row];
    return [row, make('tr', { class: 'more' }, make('td', { colspan: COLUMNS.length + 1 }, ...node.outcomes.map(outcome)))];
  };

  const table = () => {
    const { q = '', status = '', group = '', sort = 'status', axis = '', page = '1' } = wanted();
    const own = axis === 'own';
    const down = sort.startsWith('-');
    const key = compare[sort.replace(/^-/, '')] ? sort.replace(/^-/, '') : 'status';
    const needle = q.toLowerCase();
    const members = data.groups[group] ? new Set(data.groups[group].nodes) : null;
    const found = nodes.filter((node) => (!status || node.standing === status)
      && (!members || members.has(node.index)) && (!needle || node.text.includes(needle)));
    found.sort((a, b) => (compare[key](a, b) || a.index - b.index) * (down ? -1 : 1));
    const pages = Math.max(1, Math.ceil(found.length / ROWS));
    const here = Math.min(Math.max(1, Math.trunc(Number(page)) || 1), pages);
    if (byId('search').value !== q) byId('search').value = q;
    byId('status').value = status;
    byId('axis').value = own ? 'own' : '';
    byId('clear').hidden = !(q || status || members);
    byId('shown').textContent = `${count(found.length, 'node')}${found.length === nodes.length ? '' : ` of ${nodes.length.toLocaleString('en')}`}`
      + (members ? `: ${data.groups[group].what}` : '');
    put(byId('heads'), ...COLUMNS.map(([column, title]) => {
      const sorted = column === key ? (down ? 'descending' : 'ascending') : 'none';
      const button = press(title, {}, () => {
        go({ sort: column === key && !down ? `-${column}` : column, page: '' });
        byId(`sort-${column}`).focus();
      });
      button.id = `sort-${column}`;
      const number = ['attempts', 'bytes', 'seconds'].includes(column);
      return make('th', { scope: 'col', 'aria-sort': sorted, class: number ? 'number' : '' }, button);
    }), make('th', { scope: 'col', class: 'times' }, axisOf((own ? longest : total) / 1000)));
    put(byId('rows'), ...found.slice((here - 1) * ROWS, here * ROWS).flatMap((node) => rows(node, own)));
    const turn = (text, to) => {
      const button = press(text, {}, () => go({ page: String(to) }));
      button.disabled = to < 1 || to > pages;
      return button;
    };
    put(byId('pages'), ...(pages > 1 ? [turn('Previous', here - 1), make('span', {}, `page ${here} of ${pages}`), turn('Next', here + 1)] : []));
  };

  byId('search').addEventListener('input', (event) => go({ q: event.target.value, page: '' }));
  byId('status').addEventListener('change', (event) => go({ status: event.target.value, page: '' }));
  byId('axis').addEventListener('change', (event) => go({ axis: event.target.value }));
  byId('clear').addEventListener('click', () => go({ q: '', status: '', group: '', page: '' }));
  addEventListener('hashchange', table);
  addEventListener('resize', chart);
  const used = new Set(nodes.flatMap((node) => node.spans.map(([phase]) => phase)));
  if (nodes.some((node) => node.failures.length)) used.add('failure');
  put(byId('phases'), ...Object.entries(PHASES).filter(([phase]) => used.has(phase)).map(([phase, text]) => swatch(phase, text)));
  byId('about').textContent = `Made by prepull ${data.version}. This page is one file and asks nothing of any network.`;
  chart();
  table();
})();
