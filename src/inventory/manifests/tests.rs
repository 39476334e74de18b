//! What is found in manifests, and what is said of the rest.

use proptest::prelude::*;

use super::*;

/// A text without the columns of the places in it.
fn without_columns(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let parts: Vec<&str> = word.split(':').collect();
        match parts[..] {
            ["m.yml", line, _] | ["m.yml", line, _, ""] => format!("m.yml:{line}"),
            _ => word.to_string(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn read(text: &str) -> Result<Vec<(String, String)>, String> {
    let found = images_in(text, "m.yml").map_err(|error| error.to_string())?;
    let shown = |named: NamedImage| (named.image.to_string(), named.places.join(", "));
    Ok(found.images.into_iter().map(shown).collect())
}

#[test]
fn every_kind_of_workload_and_every_sort_of_container_counts() {
    let text = "# Source: chart/templates/web.yaml\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n\
        spec:\n  template:\n    spec:\n      initContainers:\n      - {name: i, image: init:1}\n      containers:\n      \
        - name: c\n        image: 'reg.example/web:v1'\n      volumes:\n      - name: v\n        image: {reference: data:2}\n\
        ---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: job}\nspec: {jobTemplate: {spec: {template: {spec: \
        {containers: [{image: reg.example/web:v1}], ephemeralContainers: [{image: debug:3}]}}}}}\n---\n# nothing\n---\n\
        {\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{\"apiVersion\": \"example/v1\", \"kind\": \"Engine\", \
        \"spec\": {\"podTemplate\": {\"spec\": {\"containers\": [{\"image\": \"engine@sha256:HEX\"}]}}}}]}\n---\n\
        kind: ConfigMap\napiVersion: v1\ndata: {containers: 'image: no', template: '{{ .x }}'}\nimage: no\n";
    let text = text.replace("HEX", &"a".repeat(64));
    let digest = format!("docker.io/library/engine@sha256:{}", "a".repeat(64));
    let expected = [
        ("docker.io/library/init:1", "m.yml:10:26 Deployment/web"),
        (
            "reg.example/web:v1",
            "m.yml:13:16 Deployment/web, m.yml:21:72 CronJob/job",
        ),
        ("docker.io/library/data:2", "m.yml:16:28 Deployment/web"),
        ("docker.io/library/debug:3", "m.yml:21:125 CronJob/job"),
        (&digest, "m.yml:25:136 Engine"),
    ];
    let read = read(&text).unwrap();
    let images: Vec<&str> = read.iter().map(|(image, _)| image.as_str()).collect();
    assert_eq!(images, expected.map(|(image, _)| image), "{read:?}");
    for ((_, places), (_, wanted)) in read.iter().zip(&expected) {
        assert_eq!(without_columns(places), without_columns(wanted));
    }
}

#[test]
fn the_last_of_equal_keys_counts_as_for_kubectl() {
    let text = "kind: Pod\napiVersion: v1\nmetadata: {name: p, labels: {a: b}, labels: {c: d}}\nspec:\n  containers:\n  \
        - {image: old:1}\n  containers:\n  - image: old:2\n    image: new:3\n    1: a\n    1: b\n";
    let found = read(text).unwrap();
    assert_eq!(
        found
            .iter()
            .map(|(image, _)| image.as_str())
            .collect::<Vec<_>>(),
        ["docker.io/library/new:3"]
    );
    assert!(found[0].1.starts_with("m.yml:9:"), "{found:?}");
}

#[test]
fn an_empty_file_is_named_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later.yml");
    std::fs::write(&path, "# not yet\n").unwrap();
    let error = images(std::slice::from_ref(&path)).unwrap_err();
    let name = path.display();
    assert_eq!(
        error.to_string(),
        format!("{name}: no image is named here; this is empty, or holds nothing but comments")
    );
}

#[test]
fn what_is_wrong_has_its_line() {
    for (text, start) in [
        (
            "a: 1\n---\nspec:\n  {{- if .Values.x }}\n  b: 2\n",
            "m.yml:4: this is a template",
        ),
        (
            "containers:\n- image: {{ .Values.image }}\n",
            "m.yml:2: this is a template",
        ),
        (
            "containers:\n- image: 'x:{{ .tag }}'\n",
            "m.yml:2:10: this is a template",
        ),
        (
            "a: 1\n---\ncontainers:\n- image: 'no image'\n",
            "m.yml:4:10: ",
        ),
        ("a: [\n", "m.yml:"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(start), "{text}: {error}");
    }
}

/// The images, and the warnings without their places.
fn all(text: &str) -> (Vec<String>, Vec<String>) {
    let found = images_in(text, "m.yml")
        .map_err(|error| error.to_string())
        .unwrap();
    let images = found.images.iter().map(|named| named.image.to_string());
    (images.collect(), found.warnings)
}

fn resource(version: &str, kind: &str, spec: &str) -> String {
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n")
}

#[test]
fn custom_resources_name_their_images_without_a_word() {
    for (version, kind, spec, expected) in [
        (
            "monitoring.coreos.com/v1",
            "Prometheus",
            "{image: 'r.io/p:v3', version: 3.0.0, thanos: {image: 'r.io/t:1'}}",
            "r.io/p:v3 r.io/t:1",
        ),
        (
            "monitoring.coreos.com/v1",
            "Alertmanager",
            "{baseImage: r.io/a, version: v0.30}",
            "r.io/a:v0.30",
        ),
        (
            "monitoring.coreos.com/v1",
            "ThanosRuler",
            "{image: 'r.io/t:1'}",
            "r.io/t:1",
        ),
        (
            "ceph.rook.io/v1",
            "CephCluster",
            "{cephVersion: {image: 'r.io/ceph:v20'}}",
            "r.io/ceph:v20",
        ),
        (
            "kafka.strimzi.io/v1beta2",
            "Kafka",
            "{kafka: {image: 'r.io/k:1', brokerRackInitImage: 'r.io/i:1'}, entityOperator: {userOperator: {image: 'r.io/u:1'}}}",
            "r.io/k:1 r.io/i:1 r.io/u:1",
        ),
        (
            "sparkoperator.k8s.io/v1beta2",
            "SparkApplication",
            "{image: 'r.io/s:1', driver: {image: 'r.io/d:1', sidecars: [{name: a, image: 'r.io/a:1'}]}}",
            "r.io/s:1 r.io/d:1 r.io/a:1",
        ),
        (
            "tekton.dev/v1",
            "Task",
            "{stepTemplate: {image: 'r.io/b:1'}, steps: [{name: a, image: 'r.io/s:1'}], sidecars: [{image: 'r.io/c:1'}]}",
            "r.io/b:1 r.io/s:1 r.io/c:1",
        ),
        (
            "tekton.dev/v1",
            "Pipeline",
            "{tasks: [{taskSpec: {params: [{name: i, default: 'r.io/d:1'}], steps: [{image: $(params.i)}]}}]}",
            "r.io/d:1",
        ),
        (
            "argoproj.io/v1alpha1",
            "Workflow",
            "{arguments: {parameters: [{name: tag, value: v1}]}, templates: [{container: {image: 'r.io/c:1'}}, {script: {image: 'r.io/s:{{workflow.parameters.tag}}', source: x}}, {containerSet: {containers: [{image: 'r.io/m:1'}]}}]}",
            "r.io/c:1 r.io/s:v1 r.io/m:1",
        ),
        (
            "argoproj.io/v1beta1",
            "ArgoCD",
            "{image: r.io/argocd, version: 'sha256:HEX', repo: {image: r.io/repo, version: v2}}",
            "r.io/argocd@sha256:HEX r.io/repo:v2",
        ),
        (
            "serving.kserve.io/v1beta1",
            "InferenceService",
            "{predictor: {model: {image: 'r.io/m:1', storageUri: 's3://x'}, containers: [{image: 'r.io/c:1'}]}}",
            "r.io/m:1 r.io/c:1",
        ),
        (
            "serving.kserve.io/v1alpha1",
            "ClusterStorageContainer",
            "{a: {storageUri: 'oci://r.io/model:1'}, b: {uri: 'hf://a/b'}}",
            "r.io/model:1",
        ),
        (
            "cdi.kubevirt.io/v1beta1",
            "DataVolume",
            "{source: {registry: {url: 'docker://r.io/vm:1', pullMethod: node}}}",
            "r.io/vm:1",
        ),
        (
            "kubevirt.io/v1",
            "VirtualMachine",
            "{template: {spec: {volumes: [{containerDisk: {image: 'r.io/disk:1'}}]}}}",
            "r.io/disk:1",
        ),
        (
            "serving.knative.dev/v1",
            "Service",
            "{template: {spec: {containers: [{image: 'r.io/s:1'}]}}}",
            "r.io/s:1",
        ),
        (
            "postgresql.cnpg.io/v1",
            "Cluster",
            "{imageName: 'r.io/pg:16', postgresql: {extensions: [{name: v, image: {reference: 'r.io/v:1'}}]}}",
            "r.io/pg:16 r.io/v:1",
        ),
        (
            "postgresql.cnpg.io/v1",
            "ImageCatalog",
            "{images: [{major: 16, image: 'r.io/pg:16'}]}",
            "r.io/pg:16",
        ),
        (
            "acid.zalan.do/v1",
            "postgresql",
            "{dockerImage: 'r.io/spilo:1', sidecars: [{name: s, image: 'r.io/s:1'}]}",
            "r.io/spilo:1 r.io/s:1",
        ),
        (
            "pxc.percona.com/v1",
            "PerconaXtraDBCluster",
            "{initImage: 'r.io/i:1', pxc: {image: 'r.io/p:1'}, haproxy: {image: 'r.io/h:1'}}",
            "r.io/i:1 r.io/p:1 r.io/h:1",
        ),
        (
            "elasticsearch.k8s.elastic.co/v1",
            "Elasticsearch",
            "{version: 8.1.0, image: r.io/es:8}",
            "r.io/es:8",
        ),
        (
            "ray.io/v1",
            "RayCluster",
            "{autoscalerOptions: {image: 'r.io/a:1'}, headGroupSpec: {template: {spec: {containers: [{image: 'r.io/h:1'}]}}}}",
            "r.io/a:1 r.io/h:1",
        ),
        (
            "nvidia.com/v1",
            "ClusterPolicy",
            "{driver: {repository: r.io/nv, image: driver, version: '1.2'}, dcgm: {repository: r.io/nv, image: dcgm, version: 'sha256:HEX'}}",
            "r.io/nv/driver:1.2 r.io/nv/dcgm@sha256:HEX",
        ),
        (
            "k8ssandra.io/v1alpha1",
            "K8ssandraCluster",
            "{cassandra: {serverImage: 'r.io/c:1'}, reaper: {containerImage: {registry: r.io, repository: x, name: reaper, tag: '3'}}}",
            "r.io/c:1 r.io/x/reaper:3",
        ),
        (
            "tempo.grafana.com/v1alpha1",
            "TempoStack",
            "{images: {tempo: 'r.io/t:1', tempoQuery: 'r.io/q:1'}}",
            "r.io/t:1 r.io/q:1",
        ),
        (
            "pkg.crossplane.io/v1",
            "Provider",
            "{package: 'r.io/provider:v1'}",
            "r.io/provider:v1",
        ),
        (
            "longhorn.io/v1beta2",
            "EngineImage",
            "{image: 'r.io/e:1'}",
            "r.io/e:1",
        ),
        (
            "apps.kruise.io/v1alpha1",
            "ImageListPullJob",
            "{images: ['r.io/a:1', 'r.io/b:1']}",
            "r.io/a:1 r.io/b:1",
        ),
        (
            "apps.openshift.io/v1",
            "DeploymentConfig",
            "{template: {spec: {containers: [{image: 'r.io/a:1'}]}}}",
            "r.io/a:1",
        ),
        (
            "operator.knative.dev/v1beta1",
            "KnativeServing",
            "{registry: {override: {activator: 'r.io/a:1'}}}",
            "r.io/a:1",
        ),
        (
            "awx.ansible.com/v1beta1",
            "AWX",
            "{image: r.io/awx, image_version: '23', redis_image: r.io/redis, redis_image_version: '7'}",
            "r.io/awx:23 r.io/redis:7",
        ),
        (
            "pingcap.com/v1alpha1",
            "TidbCluster",
            "{version: v7.5.0, helper: {image: 'r.io/h:3'}, pd: {baseImage: r.io/pd}, tikv: {baseImage: r.io/tikv, version: v7.1.0}}",
            "r.io/h:3 r.io/pd:v7.5.0 r.io/tikv:v7.1.0",
        ),
        (
            "k0smotron.io/v1beta1",
            "Cluster",
            "{image: r.io/k0s, version: v1.27.1+k0s.0, etcd: {image: 'r.io/etcd:v3'}}",
            "r.io/k0s:v1.27.1-k0s.0 r.io/etcd:v3",
        ),
        (
            "k0smotron.io/v1beta1",
            "Cluster",
            "{image: r.io/k0s, version: v1.27.1}",
            "r.io/k0s:v1.27.1-k0s.0",
        ),
        (
            "temporal.io/v1beta1",
            "TemporalCluster",
            "{version: 1.24.2, image: r.io/server, ui: {enabled: true, image: r.io/ui, version: 2.16.1}}",
            "r.io/server:1.24.2 r.io/ui:2.16.1",
        ),
        (
            "pravega.pravega.io/v1beta1",
            "PravegaCluster",
            "{version: 0.9.0, pravega: {image: {repository: r.io/pravega}}}",
            "r.io/pravega:0.9.0",
        ),
        (
            "operator.karmada.io/v1alpha1",
            "Karmada",
            "{components: {etcd: {local: {imageRepository: r.io/etcd, imageTag: 3.5.9-0}}}}",
            "r.io/etcd:3.5.9-0",
        ),
        (
            "scylla.scylladb.com/v1",
            "ScyllaCluster",
            "{version: 5.4.3, agentVersion: 3.3.0, repository: r.io/scylla, agentRepository: r.io/agent}",
            "r.io/scylla:5.4.3 r.io/agent:3.3.0",
        ),
        // Shapes, in kinds that the table does not have.
        (
            "example.com/v1",
            "Widget",
            "{pod: {container: {image: 'r.io/a:1'}, sidecar: {image: 'r.io/b:1', command: [x]}}}",
            "r.io/a:1 r.io/b:1",
        ),
        (
            "example.com/v1",
            "Widget",
            "{a: {image: {repository: r.io/a, tag: '1'}}, b: {image: r.io/b, tag: '2'}, c: {image: {registry: r.io, repository: c, digest: 'sha256:HEX'}}}",
            "r.io/a:1 r.io/b:2 r.io/c@sha256:HEX",
        ),
    ] {
        let hex = "a".repeat(64);
        let text = resource(version, kind, &spec.replace("HEX", &hex));
        let (images, warnings) = all(&text);
        let expected = expected.replace("HEX", &hex);
        assert_eq!(images.join(" "), expected, "{kind} {spec}");
        assert!(warnings.is_empty(), "{kind} {spec}: {warnings:?}");
    }
}

#[test]
fn what_is_not_understood_is_a_warning_with_its_place() {
    let pod = |container: &str| resource("v1", "Pod", &format!("{{containers: [{container}]}}"));
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {queue-image: 'r.io/q:1', f: \"a:\\n  - image: r.io/f:1\\n\"}\n".to_string();
    let policy = resource(
        "kyverno.io/v1",
        "ClusterPolicy",
        "{rules: [{mutate: {patchStrategicMerge: {spec: {initContainers: [{image: 'r.io/v:1'}]}}}}]}",
    );
    for (text, images, warnings) in [
        (
            resource("example.com/v1", "Widget", "{image: 'r.io/a:1'}"),
            "r.io/a:1",
            "m.yml:4 Widget/x: spec.image \"r.io/a:1\": taken",
        ),
        (
            resource("example.com/v1", "Widget", "{image: r.io/a}"),
            "",
            "m.yml:4 Widget/x: spec.image \"r.io/a\": looks like",
        ),
        (
            resource("example.com/v1", "Widget", "{engineImage: 'r.io/a:1'}"),
            "",
            "m.yml:4 Widget/x: spec.engineImage \"r.io/a:1\": looks like",
        ),
        (
            pod("{image: auto}"),
            "",
            "m.yml:4 Pod/x: spec.containers.image \"auto\": left out",
        ),
        (
            pod("{image: ' '}"),
            "",
            "m.yml:4 Pod/x: spec.containers.image \" \": left out",
        ),
        (
            pod(
                "{image: 'a:1', env: [{name: RELATED_IMAGE_B, value: 'r.io/b:1'}, {name: MY_IMAGE, value: 'docker.io/library/a:1'}]}",
            ),
            "docker.io/library/a:1",
            "m.yml:4 Pod/x: the environment variable RELATED_IMAGE_B",
        ),
        (
            pod(
                "{image: 'a:1', args: ['--config-reloader=r.io/x/b:1', '--listen=a.b:80', '--x=y']}",
            ),
            "docker.io/library/a:1",
            "m.yml:4 Pod/x: the argument --config-reloader",
        ),
        (
            config,
            "",
            "m.yml:4 ConfigMap/x: data.queue-image \"r.io/q:1\" | m.yml:4 ConfigMap/x: data.f, image \"r.io/f:1\"",
        ),
        (
            policy,
            "",
            "m.yml:4 ClusterPolicy/x: \"r.io/v:1\": left out, but this policy",
        ),
        (
            resource(
                "helm.toolkit.fluxcd.io/v2",
                "HelmRelease",
                "{values: {image: {repository: r.io/a, tag: '1'}}}",
            ),
            "",
            "m.yml:4 HelmRelease/x: spec.values.image",
        ),
        (
            "image: {repository: r.io/a, tag: '1'}\nx: {image: 'r.io/b:1', cdImage: 'r.io/c:1'}\n"
                .into(),
            "",
            "m.yml:1 image \"r.io/a:1\": left out",
        ),
        (
            resource(
                "argoproj.io/v1alpha1",
                "Application",
                "{source: {kustomize: {images: ['a=r.io/a:1']}, helm: {valuesObject: {image: 'r.io/b:1'}}}}",
            ),
            "",
            "m.yml:4 Application/x: spec.source.kustomize.images \"r.io/a:1\": looks like | m.yml:4 Application/x: spec.source.helm.valuesObject.image \"r.io/b:1\": left out",
        ),
        (
            resource(
                "cdi.kubevirt.io/v1beta1",
                "DataVolume",
                "{source: {registry: {url: 'docker://r.io/vm:1'}}}",
            ),
            "",
            "m.yml:4 DataVolume/x: spec.source.registry.url \"r.io/vm:1\": looks like",
        ),
        (
            resource(
                "install.istio.io/v1alpha1",
                "IstioOperator",
                "{hub: r.io/istio, tag: '1.20'}",
            ),
            "",
            "m.yml:4 IstioOperator/x: spec.hub \"r.io/istio\": looks like",
        ),
        (
            resource("tekton.dev/v1", "Task", "{steps: [{image: $(params.i)}]}"),
            "",
            "m.yml:4 Task/x: spec.steps.image \"$(params.i)\": left out",
        ),
        (
            resource(
                "operators.coreos.com/v1alpha1",
                "ClusterServiceVersion",
                "{relatedImages: [{name: a, image: 'r.io/a:1'}]}",
            ),
            "",
            "m.yml:4 ClusterServiceVersion/x: spec.relatedImages.image",
        ),
        // The version stands nowhere, or where nothing says that it is a tag.
        (
            resource("pingcap.com/v1alpha1", "TidbCluster", "{pd: {baseImage: r.io/pd}}"),
            "",
            "m.yml:4 TidbCluster/x: spec.pd.baseImage \"r.io/pd\": left out, for it has no tag",
        ),
        (
            resource(
                "bookkeeper.pravega.io/v1alpha1",
                "BookkeeperCluster",
                "{version: 0.9.0, image: {imageSpec: {repository: r.io/bk}}, autoImage: {repository: r.io/b}}",
            ),
            "",
            "m.yml:4 BookkeeperCluster/x: spec.autoImage \"r.io/b\": left out, for it has no tag",
        ),
        (
            resource("ceph.rook.io/v1", "CephCluster", "{image: r.io/a, version: '1'}"),
            "r.io/a:latest",
            "m.yml:4 CephCluster/x: spec.image \"r.io/a\": taken without version \"1\"",
        ),
        // The registry stands elsewhere.
        (
            resource(
                "datadoghq.com/v2alpha1",
                "DatadogAgent",
                "{global: {registry: r.io/dd}, override: {a: {image: {name: agent, tag: '7'}}, b: {image: {name: 'r.io/b:7'}}, c: {image: {repository: c, tag: '7'}}}}",
            ),
            "r.io/b:7",
            "m.yml:4 DatadogAgent/x: spec.override.a.image \"agent:7\": looks like | m.yml:4 DatadogAgent/x: spec.override.c.image \"c:7\": looks like",
        ),
        (
            resource(
                "operator.tigera.io/v1",
                "ImageSet",
                &format!(
                    "{{images: [{{image: tigera/operator, digest: 'sha256:{}'}}]}}",
                    "a".repeat(64)
                ),
            ),
            "",
            "m.yml:4 ImageSet/x: spec.images.image \"tigera/operator@sha256:",
        ),
        // Whole images in fields of any name.
        (
            resource(
                "example.com/v1",
                "Widget",
                "{imageSpec: 'r.io/a:v4', image: {custom: 'r.io/b:1', productVersion: '470'}, releases: [{images: {mysql: 'localhost:5000/c:1'}}], list: ['r.io:5000/d@sha256:HEX']}",
            )
            .replace("HEX", &"a".repeat(64)),
            "",
            "m.yml:4 Widget/x: spec.imageSpec \"r.io/a:v4\": looks like | m.yml:4 Widget/x: spec.image.custom \"r.io/b:1\" | m.yml:4 Widget/x: spec.releases.images.mysql \"localhost:5000/c:1\" | m.yml:4 Widget/x: spec.list \"r.io:5000/d@sha256:",
        ),
        (
            pod("{image: 'a:1', env: [{name: SIDECAR, value: 'r.io/b:1'}, {name: MY_IMAGE, value: 'r.io/c:1'}], args: [-i, 'r.io/d:1']}"),
            "docker.io/library/a:1",
            "m.yml:4 Pod/x: the environment variable SIDECAR | m.yml:4 Pod/x: the environment variable MY_IMAGE | m.yml:4 Pod/x: spec.containers.args \"r.io/d:1\"",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x, annotations: {sidecar.istio.io/proxyImage: 'r.io/p:1', taken: 'r.io/a:1'}}\nspec: {containers: [{image: 'r.io/a:1'}]}\n".into(),
            "r.io/a:1",
            "m.yml:3 Pod/x: metadata.annotations.sidecar.istio.io/proxyImage \"r.io/p:1\": looks like",
        ),
        (
            "apiVersion: helm.cattle.io/v1\nkind: HelmChart\nmetadata: {name: x}\nspec:\n  valuesContent: |-\n    image:\n      repository: r.io/a\n      tag: v3\n    b: {x: 1}\n    image: r.io/b:v1\n".into(),
            "",
            "m.yml:6 HelmChart/x: spec.valuesContent, repository \"r.io/a\": left out, for these are values",
        ),
        // Parts in fields that no line of the table has.
        (
            resource(
                "example.com/v1",
                "Widget",
                "{repository: r.io/a, version: 5.5.0, b: {imageRepository: r.io/b, version: 9.1.0}, c: {agentRepository: x/c, agentTag: '1'}, d: {baseImage: x/d}, image_web: 'r.io/e'}",
            ),
            "",
            "m.yml:4 Widget/x: spec.repository \"r.io/a:5.5.0\": looks like | m.yml:4 Widget/x: spec.b.imageRepository \"r.io/b\" | m.yml:4 Widget/x: spec.c.agentRepository \"x/c:1\" | m.yml:4 Widget/x: spec.d.baseImage \"x/d\" | m.yml:4 Widget/x: spec.image_web \"r.io/e\"",
        ),
        ("# nothing\n".into(), "", "m.yml: this is empty"),
    ] {
        let (found, said) = all(&text);
        assert_eq!(found.join(" "), images, "{text}");
        let starts: Vec<&str> = warnings.split(" | ").collect();
        assert_eq!(said.len(), starts.len(), "{text}: {said:?}");
        for (said, start) in said.iter().zip(starts) {
            assert!(without_columns(said).starts_with(start), "{text}: {said}");
        }
    }
}

#[test]
fn what_no_node_pulls_is_passed_over_in_silence() {
    let schema = "{versions: [{schema: {openAPIV3Schema: {properties: {image: {type: string, default: 'r.io/a:1'}, containers: {items: {properties: {image: {type: string}}}}}}}}]}";
    for text in [
        resource("apiextensions.k8s.io/v1", "CustomResourceDefinition", schema),
        resource("kyverno.io/v1", "ClusterPolicy", "{rules: [{validate: {pattern: {spec: {containers: [{image: '*/app:*'}, {image: '{{ x }}'}]}}}, verifyImages: [{imageReferences: ['ghcr.io/a:*']}]}]}"),
        resource("constraints.gatekeeper.sh/v1beta1", "K8sAllowedRepos", "{parameters: {images: ['r.io/a:1']}}"),
        resource("policy.sigstore.dev/v1beta1", "ClusterImagePolicy", "{images: [{glob: 'r.io/a:1'}]}"),
        resource("image.toolkit.fluxcd.io/v1", "ImageRepository", "{image: 'r.io/a:1'}"),
        resource("infrastructure.cluster.x-k8s.io/v1beta1", "OpenStackMachine", "{image: 'ubuntu:22.04'}"),
        resource("compute.azure.com/v1", "VM", "{image: 'a:1'}"),
        resource("v1", "PersistentVolume", "{rbd: {image: 'pool:1'}}"),
        resource("example.com/v1", "Widget", "{image: 'https://example.com/a.png', logoImage: logo.png, imagePullPolicy: Always, cdImage: 'a:b.iso', n: {image: ''}}"),
        resource("core.gardener.cloud/v1beta1", "Shoot", "{machine: {image: {name: '<some-image-name>', version: 1.0.0}}}"),
        resource("vmoperator.vmware.com/v1alpha3", "VirtualMachine", "{image: {kind: VirtualMachineImage, name: vmi-1}}"),
        resource("example.com/v1", "Widget", "{a: {image: {name: gardenlinux, version: 1443.3.0}}, b: {image: {kind: X, name: '<name>', tag: v1}}}"),
        resource("example.com/v1", "Widget", "{a: 'https://r.io/a:1', b: 'oci://r.io/a:1', c: 'github.com/a/b:1', d: 'a b/c.d/e:1', e: 'r.io/a', f: '10.0.0.0/8', g: 'example.com/role', h: 'r.io:80', i: './a.b/c:1', repository: 'https://r.io/charts', version: '1', j: {repository: git@r.io/a, tag: v1}, k: {repository: github.com/a/b, tag: v1}, l: {repository: bitnami, version: '2'}}"),
        resource("build.openshift.io/v1", "BuildConfig", "{output: {to: {kind: DockerImage, name: 'r.io/out:1'}}}"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: n, annotations: {a: 'r.io/a:1'}}\ndata: {a: 'r.io/a:1', b: 'x: r.io/a:1'}\n".into(),
        "apiVersion: v1\nkind: Node\nmetadata: {name: n}\nstatus: {images: [{names: ['r.io/a:1']}]}\n".into(),
        "apiVersion: v1\nkind: Secret\nstringData: {image: 'r.io/a:1'}\n".into(),
    ] {
        assert_eq!(all(&text), (vec![], vec![]), "{text}");
    }
}

#[test]
fn a_placeholder_is_told_from_an_image_and_what_fills_it_in_is_said() {
    let template = "apiVersion: template.openshift.io/v1\nkind: Template\nobjects:\n- apiVersion: v1\n  kind: Pod\n  spec: {containers: [{image: '${I}:${T}'}]}\n";
    let pod = |image: &str| {
        resource(
            "v1",
            "Pod",
            &format!("{{containers: [{{image: '{image}'}}]}}"),
        )
    };
    for (text, place, command) in [
        (
            template.to_string(),
            "m.yml:6 ",
            "oc process -f m.yml | prepull images -f -",
        ),
        (
            pod("${IMAGE}"),
            "m.yml:4 ",
            "envsubst <m.yml | prepull images -f -",
        ),
        (
            pod("ko://example.com/cmd"),
            "m.yml:4 ",
            "ko resolve -f m.yml | prepull images -f -",
        ),
        (pod("IMAGE_URL"), "m.yml:4 ", "placeholder"),
        (pod("r.io/app:__TAG__"), "m.yml:4 ", "placeholder"),
        (pod("*/app:*"), "m.yml:4 ", "is a pattern"),
        (
            resource(
                "ceph.rook.io/v1",
                "CephCluster",
                "{cephVersion: {image: '{{ .Values.x }}'}}",
            ),
            "m.yml:4 ",
            "helm template",
        ),
    ] {
        let error = read(&text).unwrap_err();
        assert!(
            without_columns(&error).starts_with(place) && error.contains(command),
            "{text}: {error}"
        );
    }
}

#[test]
fn folders_that_a_program_renders_are_named_with_it() {
    let desk = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = desk.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let pod = resource("v1", "Pod", "{containers: [{image: 'r.io/a:1'}]}");
    for folder in ["changed", "plain", "chart/templates", "empty"] {
        write(&format!("{folder}/pod.yml"), &pod);
    }
    write(
        "changed/Kustomization",
        "resources: [pod.yml]\nimages: [{name: r.io/a, newTag: v2}]\n",
    );
    write("plain/kustomization.yml", "resources: [pod.yml]\n");
    write("chart/Chart.yaml", "name: x\n");
    write("empty/pod.yml", "");
    let of = |name: &str| {
        let prefix = format!("{}/", desk.path().display());
        let found = images(&[desk.path().join(name)])
            .map_err(|error| error.to_string().replace(&prefix, ""));
        found.map(|found| {
            (
                found.images.len(),
                found.warnings.join("|").replace(&prefix, ""),
            )
        })
    };
    let changed = of("changed").unwrap_err();
    assert!(
        changed.starts_with("changed/Kustomization:2:1: ")
            && changed.contains("kustomize build changed | prepull images -f -"),
        "{changed}"
    );
    let (count, plain) = of("plain").unwrap();
    assert!(
        count == 1
            && plain.starts_with("plain/kustomization.yml: ")
            && plain.contains("kustomize build plain"),
        "{plain}"
    );
    let chart = of("chart").unwrap_err();
    assert!(
        chart.starts_with("chart: ") && chart.contains("helm template chart | prepull images -f -"),
        "{chart}"
    );
    let empty = of("empty/pod.yml").unwrap_err();
    assert!(empty.contains("this is empty"), "{empty}");
}

#[test]
fn deep_schemas_are_read_and_too_deep_ones_refused() {
    let deep = |layers: usize| {
        let mut text = String::new();
        for level in 0..layers {
            text.push_str(&format!("{}properties:\n", " ".repeat(level)));
        }
        text + &format!("{}x: 1\n", " ".repeat(layers))
    };
    assert!(read(&deep(60)).is_ok());
    assert!(read(&deep(300)).is_err());
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "(?s)(containers:|- image: |---\\n|\\{\\{|[a-z: \\n\\-\\[\\]{}']){0,60}") {
        let _ = read(&text);
    }
}
