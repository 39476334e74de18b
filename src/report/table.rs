//! A table that fits the terminal: the least important columns are cut first, and then left out.

use std::env;

use console::{Alignment, Term, measure_text_width, pad_str, truncate_str};

/// Between two columns.
const GAP: &str = "  ";
/// Columns of this rank or below are left out before others are cut.
const MAY_GO: u8 = 2;
/// Where the width of the terminal is unknown.
const USUAL_WIDTH: usize = 80;

/// A column and how it gives way.
pub(super) struct Column {
    /// What stands above it.
    pub(super) head: &'static str,
    /// Columns of lower rank are cut first.
    pub(super) rank: u8,
    /// Below this width it says nothing.
    pub(super) least: usize,
}

/// How wide a table may be: as the terminal, or as `COLUMNS` says, or 80.
pub fn width() -> usize {
    let columns = || env::var("COLUMNS").ok()?.parse().ok();
    let terminal = Term::stdout().size_checked();
    let known = terminal.map(|(_, columns)| usize::from(columns));
    known
        .or_else(columns)
        .filter(|columns| *columns > 0)
        .unwrap_or(USUAL_WIDTH)
}

/// The table, ending with a newline, within `width` where there is one. Rows are shortened or padded to the columns.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let cells = rows.iter().filter_map(|row| row.get(index));
            let widest = cells.map(|cell| measure_text_width(cell)).max();
            widest.unwrap_or(0).max(column.head.len())
        })
        .collect();
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    if let Some(width) = width {
        fit(columns, &mut widths, &mut kept, width);
    }
    let line = |cell: &dyn Fn(usize) -> String| {
        let cells: Vec<String> = kept
            .iter()
            .map(|&index| {
                let text = cell(index);
                let cut = truncate_str(&text, widths[index], "…");
                pad_str(&cut, widths[index], Alignment::Left, None).into_owned()
            })
            .collect();
        format!("{}\n", cells.join(GAP).trim_end())
    };
    let mut out = line(&|index| columns[index].head.to_string());
    for row in rows {
        out += &line(&|index| row.get(index).cloned().unwrap_or_default());
    }
    out
}

/// Narrows columns, then leaves some out, until a line is no wider than `width`.
fn fit(columns: &[Column], widths: &mut [usize], kept: &mut Vec<usize>, width: usize) {
    loop {
        let gaps = GAP.len() * kept.len().saturating_sub(1);
        let total: usize = kept.iter().map(|&index| widths[index]).sum::<usize>() + gaps;
        let Some(excess) = total.checked_sub(width).filter(|excess| *excess > 0) else {
            return;
        };
        let least = |index: usize| columns[index].least.max(columns[index].head.len());
        let by_rank = |index: &&usize| columns[**index].rank;
        // One that may go is cut first, and goes before another one is cut.
        let gives_way =
            |index: &&usize| widths[**index] > least(**index) || columns[**index].rank <= MAY_GO;
        if let Some(&index) = kept.iter().filter(gives_way).min_by_key(by_rank)
            && widths[index] > least(index)
        {
            widths[index] = widths[index].saturating_sub(excess).max(least(index));
            continue;
        }
        match kept.iter().min_by_key(by_rank).copied() {
            Some(lowest) if kept.len() > 1 => kept.retain(|index| *index != lowest),
            Some(last) => {
                widths[last] = width;
                return;
            }
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column {
            head: "NAME",
            rank: 9,
            least: 4,
        },
        Column {
            head: "LABELS",
            rank: 1,
            least: 8,
        },
        Column {
            head: "STATE",
            rank: 5,
            least: 5,
        },
    ];

    fn rows() -> Vec<Vec<String>> {
        [
            ["a-node.of.some.example", "pool=gpu,zone=somewhere", "Ready"],
            ["b", "größe=ß", "NotReady"],
        ]
        .map(|row| row.map(String::from).to_vec())
        .to_vec()
    }

    #[test]
    fn the_least_important_column_is_cut_first_and_then_left_out() {
        let shown = |width| table(&COLUMNS, &rows(), Some(width));
        assert_eq!(table(&COLUMNS, &rows(), None), shown(200));
        assert_eq!(
            shown(46),
            "NAME                    LABELS        STATE\n\
             a-node.of.some.example  pool=gpu,zo…  Ready\n\
             b                       größe=ß       NotReady\n"
        );
        assert_eq!(
            shown(32),
            "NAME                    STATE\n\
             a-node.of.some.example  Ready\n\
             b                       NotReady\n"
        );
        assert_eq!(shown(6), "NAME\na-n…\nb\n");
    }

    #[test]
    fn no_line_is_wider_than_it_may_be() {
        for width in 1..90 {
            for line in table(&COLUMNS, &rows(), Some(width)).lines() {
                assert!(measure_text_width(line) <= width, "{width}: {line}");
            }
        }
    }
}
