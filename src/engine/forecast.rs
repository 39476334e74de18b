//! For a forecast: which layers of the images a node lacks.

use std::collections::{BTreeSet, HashSet};

use super::context::RunContext;
use super::preflight::{manifest_of, present};
use crate::model::stock::short_digest;
use crate::model::{Image, Layer, Node, NodeFacts, NodeForecast, Plan, Stage, Stock};
use crate::node::{self, Interrupted};
use crate::ports::{Runtime, Session, StockQuestion};

/// The longest list of layers that is sent to a node, in bytes: one argument may have 128 KiB.
const LIST: usize = 100 << 10;

/// Asks a node for its layers, once it has told what it is.
pub(super) async fn ask<T, S: Session>(
    context: &RunContext<'_, T>,
    session: &mut S,
    node: &Node,
    runtime: &dyn Runtime,
    facts: &NodeFacts,
) -> Result<NodeForecast, Interrupted> {
    let plan = context.plan;
    let mut wanted = BTreeSet::new();
    for manifests in plan.contents.iter().flatten() {
        let manifest = manifest_of(plan, manifests, &facts.os, &facts.architecture);
        let layers = manifest.iter().flat_map(|manifest| &manifest.layers);
        wanted.extend(layers.map(|layer| short_digest(&layer.digest)));
    }
    let list = wanted.into_iter().collect::<Vec<_>>().join(" ");
    let question = StockQuestion {
        root: &facts.root,
        layers: if list.len() > LIST { "" } else { &list },
        endpoint: node.endpoint.as_deref(),
    };
    let mut stock = match runtime.stock(&question) {
        Some(command) => {
            let cancel = context.cancelled();
            let asking = node::ask(session, node, command, Stage::Probe, cancel);
            runtime.read_stock(&asking.await?)
        }
        None => Stock {
            unknown: Some(format!("{} cannot be asked for its layers", runtime.kind())),
            ..Stock::default()
        },
    };
    if list.len() > LIST {
        stock.layers = None;
        stock.unknown = Some("the images have too many layers to ask about".into());
    }
    Ok(lacks(plan, facts, stock))
}

/// What a node with this stock lacks.
fn lacks(plan: &Plan, facts: &NodeFacts, stock: Stock) -> NodeForecast {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut counted: HashSet<&str> = HashSet::new();
    let mut missing: Option<Vec<Vec<Layer>>> = Some(Vec::new());
    let mut at_most = Some(0_u64);
    let mut unknown = None;
    for (index, planned) in plan.work.planned().iter().enumerate() {
        let image: &Image = &planned.image;
        let held = facts.images.get(index).and_then(Option::as_ref);
        let manifests = plan.contents.get(index).and_then(Option::as_ref);
        let mut layers = Vec::new();
        if present(plan, image, held).is_none() {
            match manifests {
                None => {
                    (missing, at_most) = (None, None);
                    unknown = Some(format!("the registry did not tell what {image} is made of"));
                }
                // An image for no platform of this node brings nothing.
                Some(manifests) => {
                    let manifest = manifest_of(plan, manifests, &facts.os, &facts.architecture);
                    for layer in manifest.iter().flat_map(|manifest| &manifest.layers) {
                        if counted.insert(&layer.digest) {
                            at_most = at_most.map(|sum| sum.saturating_add(layer.bytes));
                        }
                    }
                    match manifest.map_or(Some(Vec::new()), |manifest| stock.missing(manifest)) {
                        Some(lacking) => {
                            layers.extend(
                                lacking
                                    .into_iter()
                                    .filter(|l| seen.insert(&l.digest))
                                    .cloned(),
                            );
                        }
                        None => {
                            missing = None;
                            unknown.get_or_insert_with(|| {
                                let untold =
                                    "the registry did not tell the unpacked layers of its image";
                                stock.unknown.clone().unwrap_or_else(|| untold.into())
                            });
                        }
                    }
                }
            }
        }
        if let Some(missing) = &mut missing {
            missing.push(layers);
        }
    }
    NodeForecast {
        missing,
        at_most,
        unknown,
        size: stock.size,
        kubelet: stock.kubelet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        ClockOffset, Fleet, LocalImage, Manifest, Node, PlannedImage, Policy, PullWhen, Work,
    };

    fn layer(digest: &str, bytes: u64) -> Layer {
        Layer {
            digest: format!("sha256:{digest}"),
            bytes,
        }
    }

    fn plan(images: &[Option<&[Layer]>]) -> Plan {
        let planned = |number| PlannedImage {
            image: format!("reg.example/app{number}:v1").parse().unwrap(),
            login: None,
        };
        let manifest = |layers: &[Layer]| Manifest {
            platform: None,
            layers: layers.to_vec(),
            diff_ids: Vec::new(),
        };
        Plan {
            contents: images
                .iter()
                .map(|layers| layers.map(|layers| vec![manifest(layers)]))
                .collect(),
            ..Plan::new(
                Fleet::new(vec![Node::named("n1")]).unwrap(),
                Work::Probe((0..images.len()).map(planned).collect()),
                Policy::default(),
            )
        }
    }

    fn facts(held: &[bool]) -> NodeFacts {
        let image = || LocalImage {
            digest: Some("sha256:1".into()),
            image_id: None,
            bytes: None,
            platform: None,
        };
        NodeFacts {
            os: "linux".into(),
            architecture: "amd64".into(),
            system: String::new(),
            clock: ClockOffset {
                milliseconds: 0,
                uncertainty: 0,
            },
            runtime: String::new(),
            client: String::new(),
            endpoint: None,
            root: String::new(),
            free: None,
            images: held.iter().map(|held| held.then(image)).collect(),
            unusable_registries: vec![],
            obstacles: vec![],
            forecast: None,
        }
    }

    fn holding(layers: &[&str]) -> Stock {
        Stock {
            layers: Some(layers.iter().map(ToString::to_string).collect()),
            ..Stock::default()
        }
    }

    #[test]
    fn a_layer_comes_once_and_with_the_first_image_that_brings_it() {
        let (a, b, c) = (layer("a", 1), layer("b", 10), layer("c", 100));
        let plan = plan(&[Some(&[a, b.clone()]), Some(&[b.clone(), c.clone()])]);
        let found = lacks(&plan, &facts(&[false, false]), holding(&["a"]));
        assert_eq!(found.missing, Some(vec![vec![b], vec![c.clone()]]));
        assert_eq!(found.at_most, Some(111));
        // What is there under the image's name is left alone, unless it is to be pulled again.
        let found = lacks(&plan, &facts(&[true, false]), holding(&["b"]));
        assert_eq!(found.missing, Some(vec![vec![], vec![c]]));
        let mut again = plan;
        again.policy.pull = PullWhen::Always;
        let found = lacks(&again, &facts(&[true, true]), holding(&[]));
        assert_eq!(found.missing.unwrap().concat().len(), 3);
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let plan = plan(&[Some(&[layer("a", 1)]), None]);
        let unseen = Stock {
            unknown: Some("only root".into()),
            ..Stock::default()
        };
        let found = lacks(&plan, &facts(&[false, true]), unseen.clone());
        assert_eq!((found.missing, found.at_most), (None, Some(1)));
        assert_eq!(found.unknown.as_deref(), Some("only root"));
        let found = lacks(&plan, &facts(&[true, false]), unseen);
        assert_eq!((found.missing, found.at_most), (None, None));
        assert!(found.unknown.unwrap().contains("app1:v1"));
    }
}
