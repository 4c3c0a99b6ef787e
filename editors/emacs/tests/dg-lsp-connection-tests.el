;;; dg-lsp-connection-tests.el --- The connection beside other servers  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; All tests with the server, and those of the connection itself, in buffers
;; that Eglot manages for another server.

;;; Code:

(require 'dg-lsp-tests)

(setq dg-lsp-tests-beside-eglot t)

(defun dg-lsp-tests--change ()
  "Return the change of which the server is told now."
  (let ((change nil))
    (cl-letf (((symbol-function 'jsonrpc-notify)
               (lambda (_server method params)
                 (should (eq method :textDocument/didChange))
                 (setq change (aref (plist-get params :contentChanges) 0)))))
      (dg-lsp-server-flush (dg-lsp-current-server)))
    change))

(defun dg-lsp-tests--apply (text change)
  "Return TEXT after CHANGE, in whose positions columns are 0 or beyond all."
  (if-let* ((range (plist-get change :range)))
      (with-temp-buffer
        (insert text)
        (cl-flet ((place (position)
                    (goto-char (point-min))
                    (forward-line (plist-get position :line))
                    (if (zerop (plist-get position :character)) (point)
                      (line-end-position))))
          (let ((start (place (plist-get range :start)))
                (end (place (plist-get range :end))))
            (delete-region start end)
            (goto-char start)
            (insert (plist-get change :text))))
        (buffer-string))
    (plist-get change :text)))

(ert-deftest dg-lsp-tests-the-server-knows-the-text-after-any-edits ()
  (random "dg")
  (dg-lsp-tests-in "one\ntwo|\nthree\n"
    (let ((known (buffer-string)) (parts 0))
      (dotimes (_ 300)
        (dotimes (_ (1+ (random 3)))
          (goto-char (1+ (random (1+ (buffer-size)))))
          (pcase (random 6)
            ((or 0 1) (insert (seq-random-elt '("a" "\n" "b\n" "\nc" "d\ne" "😀\n\n"))))
            ((or 2 3) (delete-region
                       (point) (min (point-max) (+ (point) (random 6)))))
            (4 (let ((inhibit-modification-hooks (= 0 (random 2))))
                 (upcase-region (point-min) (point-max))))
            (5 (undo-boundary) (subst-char-in-region (point-min) (point-max)
                                                     ?a ?b))))
        (unless (eql (dg-lsp-connection--document-tick dg-lsp-connection--document)
                     (buffer-chars-modified-tick))
          (let ((change (dg-lsp-tests--change)))
            (when (plist-get change :range) (cl-incf parts))
            (setq known (dg-lsp-tests--apply known change))))
        (should (equal known (buffer-string))))
      (should (> parts 100)))))

(ert-deftest dg-lsp-tests-what-is-no-character-is-told-as-one-unknown ()
  (dg-lsp-tests-in "x = '|'\n"
    ;; It cannot tell its own server.
    (eglot--managed-mode-off)
    (insert "\x3fff80\x3fffff\ud800\xdfff\x110000\x3fff7f")
    (should (equal (dg-lsp-connection--text)
                   (format "x = '%s'\n" (make-string 6 #xfffd))))
    (dg-lsp-connection-attach)
    (goto-char (line-end-position))
    (dg-lsp-tests--type "; return ")
    (dg-lsp-tests--ghost "width * height"))
  (with-temp-buffer
    (set-buffer-multibyte nil)
    (insert 255)
    (should (equal (dg-lsp-connection--text) "\ufffd"))))

(ert-deftest dg-lsp-tests-a-buffer-that-cannot-be-told-keeps-no-other-back ()
  (dg-lsp-tests-in "def f():\n    return |\n"
    (let ((good (current-buffer)) (debug-on-error nil))
      (dg-lsp-tests-in "|"
        (let ((bad (current-buffer))
              (language (symbol-function 'dg-lsp-connection--language)))
          (cl-letf (((symbol-function 'dg-lsp-connection--language)
                     (lambda ()
                       (when (eq (current-buffer) bad) (error "A mistake"))
                       (funcall language))))
            (dg-lsp-restart-server)
            (dg-lsp-tests--until #'dg-lsp-current-server))
          (switch-to-buffer good)
          (dg-lsp-tests--press "M-RET")
          (dg-lsp-tests--ghost "width * height")
          (switch-to-buffer bad)
          (dg-lsp-restart-server)
          (dg-lsp-tests--until #'dg-lsp-current-server))))))

(ert-deftest dg-lsp-tests-a-dead-server-comes-back ()
  (dg-lsp-tests-in "def f():\n    return|\n"
    (let ((server (dg-lsp-current-server)))
      ;; As if it had lived for long.
      (setf (dg-lsp-connection-born server) 0)
      (delete-process (jsonrpc--process server))
      (dg-lsp-tests--until (lambda ()
                             (not (memq (dg-lsp-current-server)
                                        (list nil server)))))
      (dg-lsp-tests--type " ")
      (dg-lsp-tests--ghost "width * height"))
    ;; This one dies young, and is not started for ever.
    (delete-process (jsonrpc--process (dg-lsp-current-server)))
    (dg-lsp-tests--until (lambda () (not (dg-lsp-current-server))))
    (should-not (dg-lsp-connection-starting-p))
    (should (string-search "no server" (dg-lsp-mode-line)))
    (dg-lsp-restart-server)
    (should (string-search "starting" (dg-lsp-mode-line)))
    (dg-lsp-tests--until #'dg-lsp-current-server)))

(ert-deftest dg-lsp-tests-the-last-buffer-ends-its-server ()
  (dg-lsp-tests-in "|"
    (let* ((server (dg-lsp-current-server))
           (process (jsonrpc--process server)))
      (dg-lsp-mode -1)
      (dg-lsp-connection--end-if-idle server)
      (dg-lsp-tests--until (lambda () (not (process-live-p process))))
      (should-not (memq server dg-lsp-connection--all)))))

;; As where `dg-lsp-command' names a wrapper that waits for something.
(ert-deftest dg-lsp-tests-a-server-that-hangs-is-ended ()
  (with-current-buffer (generate-new-buffer "hung")
    (setq default-directory (file-name-as-directory (make-temp-file "dg" t)))
    (let* ((dg-lsp-command '("sleep" "600"))
           (running (lambda ()
                      (seq-filter (lambda (process)
                                    (and (process-live-p process)
                                         (equal (process-command process)
                                                dg-lsp-command)))
                                  (process-list))))
           hung)
      (dg-lsp-mode 1)
      (dg-lsp-tests--until (lambda () (setq hung (car (funcall running)))))
      (dg-lsp-restart-server)
      (dg-lsp-tests--until (lambda () (not (process-live-p hung))))
      (should (= (length (funcall running)) 1))
      (mapc #'delete-process (funcall running)))
    (kill-buffer)))

(ert-deftest dg-lsp-tests-a-missing-program-is-told-and-no-error ()
  (let ((dg-lsp-command '("there-is-no-such-program"))
        (debug-on-error nil))
    (with-current-buffer (generate-new-buffer "missing")
      (setq default-directory temporary-file-directory)
      (let ((inhibit-message t)) (dg-lsp-mode 1))
      (should-not (dg-lsp-current-server))
      (kill-buffer))))

(ert-deftest dg-lsp-tests-a-program-that-came-later-is-started-by-hand ()
  (dg-lsp-tests-in "|"
    (with-current-buffer (generate-new-buffer "missing")
      (setq default-directory
            (file-name-as-directory (make-temp-file "dg" t)))
      (let ((dg-lsp-command '("there-is-no-such-program"))
            (debug-on-error nil)
            (inhibit-message t))
        (dg-lsp-mode 1))
      (should-not dg-lsp-connection--document)
      (dg-lsp-restart-server)
      (should dg-lsp-connection--document)
      (kill-buffer))))

(ert-deftest dg-lsp-tests-a-pause-holds-for-every-project ()
  (dg-lsp-tests-in "|"
    (let ((here (dg-lsp-current-server)))
      (with-current-buffer (generate-new-buffer "elsewhere")
        (setq default-directory
              (file-name-as-directory (make-temp-file "dg" t)))
        (dg-lsp-mode 1)
        (dg-lsp-tests--until #'dg-lsp-current-server)
        (should-not (eq (dg-lsp-current-server) here))
        (dg-lsp-snooze 5)
        (dg-lsp-tests--state "snoozed")
        (kill-buffer))
      (dg-lsp-tests--state "snoozed")
      (dg-lsp-snooze 0))))

(ert-deftest dg-lsp-tests-buffers-for-internal-use-have-no-server ()
  (with-temp-buffer
    (dg-lsp-mode 1)
    (should-not dg-lsp-connection--document)))

(provide 'dg-lsp-connection-tests)
;;; dg-lsp-connection-tests.el ends here
