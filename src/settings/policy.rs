//! The policy part of the settings: how much at once, how often, how long.

use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};

use crate::cli::{PolicyArgs, PullArgs};
use crate::model::{Backoff, FanOut, Keep, Policy, Portion, PullVia};

pub(super) fn policy(args: &PolicyArgs) -> Result<Policy> {
    let (min, max) = args.backoff;
    Ok(Policy {
        parallel: args.parallel as usize,
        retries: args.retries,
        backoff: Backoff { min, max },
        deadline: args.deadline,
        max_failures: args.max_failures,
        waves: rising(&args.waves)?,
        seed: fastrand::u64(..),
        ..Policy::default()
    })
}

/// In how large a fleet nodes try first without being asked to, and how many.
const CANARY_FLEET: usize = 20;
const CANARY: usize = 5;

/// How many nodes try first.
pub(super) fn canary(asked: Option<u32>, nodes: usize) -> usize {
    match asked {
        Some(number) => number as usize,
        None if nodes > CANARY_FLEET => CANARY,
        None => 0,
    }
}

/// The waves as typed must rise, as far as that can be known before the fleet's size is.
fn rising(waves: &[Portion]) -> Result<Vec<Portion>> {
    for pair in waves.windows(2) {
        let falls = match pair {
            [Portion::Count(a), Portion::Count(b)] => a >= b,
            [Portion::Percent(a), Portion::Percent(b)] => a >= b,
            _ => false,
        };
        if falls {
            bail!("--waves: the sizes are cumulative and must rise, e.g. 1,10%,100%");
        }
    }
    Ok(waves.to_vec())
}

/// Where nodes pull from. Files can only be sent.
pub(super) fn via(args: &PullArgs) -> Result<PullVia> {
    if matches!(args.via, PullVia::Registry | PullVia::DaemonSet) {
        if !args.from.is_empty() {
            bail!("--from: images in files reach nodes only through SSH: add --via ssh-only");
        }
        if args.upload_limit.is_some() {
            bail!("--upload-limit: nothing is sent to nodes without --via ssh");
        }
        if !args.mirror.is_empty() && !args.preflight {
            bail!(
                "--mirror: prepull itself asks registries only with --via ssh or --preflight; nodes pull from their own mirrors"
            );
        }
    }
    Ok(args.via)
}

/// Whether what was pulled is pinned, and until when it is wanted.
pub(super) fn keep(args: &PullArgs) -> Result<Option<Keep>> {
    let Some(time) = args.keep_for else {
        return Ok(args.keep.then_some(Keep { until: None }));
    };
    // Later than the year 9999 cannot be written down.
    let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let until = SystemTime::now().checked_add(time);
    let until = until.filter(|until| *until <= latest);
    if until.is_none() {
        bail!("--keep-for: that is after the year 9999; --keep has no end");
    }
    Ok(Some(Keep { until }))
}

/// Whether nodes pass images on to each other, and how.
pub(super) fn fan_out(args: &PullArgs) -> Result<Option<FanOut>> {
    if args.fan_out && args.platform.is_some() {
        bail!("--fan-out: nodes pass on what is for their own platform, so leave --platform out");
    }
    Ok(args.fan_out.then_some(FanOut {
        port: args.fan_out_port,
        max_upload: args.fan_out_max_upload,
    }))
}

/// `os/architecture[/variant]`, as the OCI image specification writes platforms.
pub(super) fn platform(text: &str) -> Result<String> {
    let is_word = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'.')
            && !part.starts_with('-')
    };
    let parts: Vec<&str> = text.split('/').collect();
    if (2..=3).contains(&parts.len()) && parts.iter().all(|part| is_word(part)) {
        Ok(text.to_string())
    } else {
        bail!("--platform: write os/architecture, e.g. linux/arm64")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_must_rise() {
        assert!(
            rising(&[
                Portion::Count(1),
                Portion::Percent(10.0),
                Portion::Percent(100.0)
            ])
            .is_ok()
        );
        assert!(rising(&[Portion::Percent(50.0), Portion::Percent(10.0)]).is_err());
        assert!(rising(&[Portion::Count(5), Portion::Count(5)]).is_err());
    }

    #[test]
    fn platforms_have_two_or_three_parts() {
        assert_eq!(platform("linux/arm64/v8").unwrap(), "linux/arm64/v8");
        for wrong in ["linux", "linux/", "-x/arm64", "linux/arm 64", "a/b/c/d"] {
            assert!(platform(wrong).is_err(), "{wrong}");
        }
    }
}
