//! The header `Range` (RFC 9110, 14.2): one range of bytes.

/// The half-open range of bytes that a request asks for, of a blob of `size` bytes. `None` means to send all of it: the header
/// uses another unit, is malformed, or has several ranges. An error means that the range begins past the end.
pub(crate) fn wanted(header: &str, size: u64) -> Option<Result<(u64, u64), Unsatisfiable>> {
    let range = header.trim().strip_prefix("bytes=")?.trim();
    let (first, last) = range.split_once('-')?;
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => return None,
        (Some(first), Some(last)) => (first, last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => (first, size),
        (None, Some(length)) if first.is_empty() => {
            let start = size.saturating_sub(length);
            if length == 0 {
                (size, size)
            } else {
                (start, size)
            }
        }
        _ => return None,
    };
    let is_there = range.0 < size;
    Some(if is_there {
        Ok(range)
    } else {
        Err(Unsatisfiable)
    })
}

/// A range that begins after the last byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsatisfiable;

/// Digits only: no sign, no spaces. More than fits is as good as the largest number.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_mean_what_the_rfc_says() {
        for (header, range) in [
            ("bytes=0-0", Some(Ok((0, 1)))),
            ("bytes=2-4", Some(Ok((2, 5)))),
            ("bytes=2-", Some(Ok((2, 10)))),
            ("bytes=2-99999999999999999999999", Some(Ok((2, 10)))),
            ("bytes=-3", Some(Ok((7, 10)))),
            ("bytes=-30", Some(Ok((0, 10)))),
            ("bytes=9-9", Some(Ok((9, 10)))),
            ("bytes=10-", Some(Err(Unsatisfiable))),
            ("bytes=10-12", Some(Err(Unsatisfiable))),
            ("bytes=-0", Some(Err(Unsatisfiable))),
            ("bytes=99999999999999999999999-", Some(Err(Unsatisfiable))),
            ("bytes=4-2", None),
            ("bytes=-", None),
            ("bytes=0-1,3-4", None),
            ("bytes=+1-2", None),
            ("bytes=a-b", None),
            ("items=0-1", None),
            ("", None),
        ] {
            assert_eq!(wanted(header, 10), range, "{header}");
        }
        assert_eq!(wanted("bytes=0-", 0), Some(Err(Unsatisfiable)));
    }

    proptest! {
        #[test]
        fn a_range_is_never_empty_and_never_beyond_the_end(header in "bytes=[0-9]{0,3}-[0-9]{0,3}|.{0,20}", size in 0u64..200) {
            if let Some(Ok((start, end))) = wanted(&header, size) {
                prop_assert!(start < end && end <= size);
            }
        }
    }
}
