//! A report in words: what the policy hook sees of it.
//!
//! Names are those of the firmware ABI in lower case; bit fields are spelled out; bytes are
//! lower-case hexadecimal; a TCB is an object whose parts depend on the product.

use serde_json::{Value, json};

use super::chain::Leaf;
use super::product::Product;
use super::report::{FirmwareVersion, Report};

/// Everything that `report` says.
pub(super) fn of(report: &Report, product: Option<Product>, leaf: Option<&Leaf<'_>>) -> Value {
    // Destructured so that a field added to the report cannot be left out.
    let Report {
        version,
        guest_svn,
        policy,
        family_id,
        image_id,
        vmpl,
        current_tcb,
        platform_info,
        signing_key,
        mask_chip_key,
        author_key_en,
        report_data,
        measurement,
        host_data,
        id_key_digest,
        author_key_digest,
        report_id,
        report_id_ma,
        reported_tcb,
        cpuid,
        chip_id,
        committed_tcb,
        current_version,
        committed_version,
        launch_tcb,
        launch_mitigation_vector,
        current_mitigation_vector,
        signed: _,
        signature: _,
    } = report;
    let tcb = |tcb: &super::tcb::RawTcb| product.map(|product| tcb.document(product));
    json!({
        "version": version,
        "guest_svn": guest_svn,
        "policy": policy_document(*policy),
        "family_id": hex::encode(family_id),
        "image_id": hex::encode(image_id),
        "vmpl": vmpl,
        "current_tcb": tcb(current_tcb),
        "platform_info": platform_document(*platform_info),
        "signing_key": signing_key.as_str(),
        "mask_chip_key": mask_chip_key,
        "author_key_en": author_key_en,
        "report_data": hex::encode(report_data),
        "measurement": hex::encode(measurement),
        "host_data": hex::encode(host_data),
        "id_key_digest": hex::encode(id_key_digest),
        "author_key_digest": hex::encode(author_key_digest),
        "report_id": hex::encode(report_id),
        "report_id_ma": hex::encode(report_id_ma),
        "reported_tcb": tcb(reported_tcb),
        "cpuid": cpuid.map(|[family, model, stepping]| {
            json!({ "family": family, "model": model, "stepping": stepping })
        }),
        "chip_id": hex::encode(chip_id),
        "chip_id_masked": report.chip_id_is_masked(),
        "committed_tcb": tcb(committed_tcb),
        "current_version": version_document(*current_version),
        "committed_version": version_document(*committed_version),
        "launch_tcb": tcb(launch_tcb),
        "launch_mitigation_vector": launch_mitigation_vector,
        "current_mitigation_vector": current_mitigation_vector,
        "product": product.map(Product::as_str),
        "vek": leaf.map(leaf_document),
    })
}

/// Which certificate the report was checked against.
fn leaf_document(leaf: &Leaf<'_>) -> Value {
    let hardware_id = leaf.hardware_id().ok().flatten();
    json!({
        "source": leaf.source,
        "sha256": hex::encode(leaf.certificate.fingerprint().as_bytes()),
        "kind": leaf.kind.map(super::report::SigningKey::as_str),
        "hardware_id": hardware_id.map(hex::encode),
        "operator": leaf.operator(),
    })
}

/// GUEST_POLICY (firmware ABI, table 10).
fn policy_document(policy: u64) -> Value {
    let [abi_minor, abi_major, ..] = policy.to_le_bytes();
    let bit = |bit: u32| policy >> bit & 1 == 1;
    json!({
        "value": format!("0x{policy:x}"),
        "abi_major": abi_major,
        "abi_minor": abi_minor,
        "smt_allowed": bit(16),
        "migrate_ma_allowed": bit(MIGRATE_MA),
        "debug_allowed": bit(DEBUG),
        "single_socket_required": bit(20),
        "cxl_allowed": bit(21),
        "mem_aes_256_xts_required": bit(22),
        "rapl_disabled": bit(23),
        "ciphertext_hiding_dram_required": bit(24),
        "page_swap_disabled": bit(25),
    })
}

/// PLATFORM_INFO (firmware ABI, table 24). Bits that this version does not know are shown, not
/// refused: they only tell of the platform, and newer firmware sets them.
fn platform_document(info: u64) -> Value {
    let bit = |bit: u32| info >> bit & 1 == 1;
    json!({
        "value": format!("0x{info:x}"),
        "smt_enabled": bit(0),
        "tsme_enabled": bit(1),
        "ecc_enabled": bit(2),
        "rapl_disabled": bit(3),
        "ciphertext_hiding_dram_enabled": bit(4),
        "alias_check_complete": bit(5),
        "tio_enabled": bit(7),
        "unknown_bits": format!("0x{:x}", info & !PLATFORM_KNOWN),
    })
}

fn version_document(version: FirmwareVersion) -> Value {
    let FirmwareVersion { major, minor, build } = version;
    json!({ "major": major, "minor": minor, "build": build })
}

/// POLICY: association with a migration agent is allowed.
pub(super) const MIGRATE_MA: u32 = 18;
/// POLICY: debugging is allowed.
pub(super) const DEBUG: u32 = 19;
/// Bits 0 to 5, and 7.
const PLATFORM_KNOWN: u64 = 0xbf;
