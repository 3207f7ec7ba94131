"""Archivers, compressors, ciphers and digests."""

from __future__ import annotations

from tests.corpus.case import one, shell

_TAR = "tar --owner=0 --group=0 --mtime=@0 --sort=name"

CASES = (
    one(f"{_TAR} -cf all.tar tree words.txt", "creates"),
    shell("tar", "gzip, list, extract, compare", f"{_TAR} -cf - tree | gzip -n >t.tgz; tar -tzf t.tgz; mkdir x; tar -xzf t.tgz -C x; diff -r tree x/tree"),
    shell("tar", "xz and zstd by itself", f"{_TAR} -cJf t.txz tree; {_TAR} --zstd -cf t.tzst tree; tar -tf t.txz; tar -xOf t.tzst tree/a.txt", needs=("xz", "zstd")),
    shell("tar", "excludes, transforms, appends", f"{_TAR} -cf t --exclude='*.sh' --transform=s,tree,wood, tree; {_TAR} -rf t words.txt; tar -tf t"),
    shell("tar", "sparse file", f"truncate -s 300k s; echo x >>s; {_TAR} -Scf t s; tar -xf t; ls -s s | cut -d' ' -f2; cksum s"),
    one("gzip -n -9 words.txt", "compresses in place"),
    shell("gzip", "there and back, tests, lists", "gzip -nk text.txt; gzip -t text.txt.gz; zcat text.txt.gz | cmp - text.txt; gunzip -c text.txt.gz | wc -c"),
    one("bzip2 -k words.txt", "compresses"),
    shell("bzip2", "there and back", "bzip2 <text.txt | bunzip2 | cmp - text.txt"),
    one("xz -k -T1 words.txt", "compresses, one thread"),
    shell("xz", "there and back, threads", "xz -T2 -c text.txt | xz -dc | cmp - text.txt"),
    one("zstd -q -k --single-thread words.txt", "compresses, one thread"),
    shell("zstd", "there and back, threads", "zstd -q -T2 -c text.txt | zstd -dqc | cmp - text.txt"),
    shell("cpio", "creates, lists, extracts", "find tree -name '*.txt' | sort | cpio -o --quiet --reproducible -H newc -R 0:0 >t; cpio -t --quiet <t; mkdir x; cd x; cpio -id --quiet <../t", volatile=("t",)),
    shell("zip", "creates; unzip lists and tests", "zip -q -X -r t.zip tree; unzip -tq t.zip; unzip -q -d x t.zip; ls -R x", needs=("unzip",), volatile=("t.zip",)),
    shell("ar", "creates, lists", "ar rcD t.a words.txt text.txt; ar t t.a; ar p t.a text.txt | cmp - text.txt"),
    one("openssl dgst -sha256 words.txt", "SHA-256"),
    one("openssl dgst -md5 -hmac key words.txt", "HMAC-MD5"),
    one("openssl enc -aes-256-cbc -K 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -iv 0123456789abcdef0123456789abcdef -in words.txt -out w.enc", "AES-256-CBC"),
    shell("openssl", "encrypts with a password and back", "openssl enc -aes-128-ctr -pbkdf2 -pass pass:secret -in text.txt | openssl enc -d -aes-128-ctr -pbkdf2 -pass pass:secret | cmp - text.txt"),
    shell("openssl", "key, signature, verification", "openssl genpkey -algorithm ED25519 -out k; openssl pkey -in k -pubout -out p; openssl pkeyutl -sign -inkey k -rawin -in words.txt -out s; openssl pkeyutl -verify -pubin -inkey p -rawin -in words.txt -sigfile s", volatile=("k", "p", "s")),
    shell("openssl", "RSA key and certificate", "openssl req -x509 -newkey rsa:1024 -nodes -keyout k -out c -subj /CN=test -days 9 2>/dev/null; openssl x509 -in c -noout -subject; openssl verify -CAfile c c", volatile=("k", "c"), slow=True),
    one("sha256sum -c sums", "checks a list", files={"sums": "0" * 64 + "  words.txt\n"}),
)  # fmt: skip
