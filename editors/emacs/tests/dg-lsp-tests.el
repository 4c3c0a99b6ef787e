;;; dg-lsp-tests.el --- The mode with the real server  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; Run them with the option -L for the folder of the package, set
;; `dg-lsp-tests-server', then call `ert-run-tests-batch-and-exit'.

;;; Code:

(require 'dg-lsp-tests-helpers)

;;;; Showing and accepting

(ert-deftest dg-lsp-tests-typing-brings-ghost-text-and-tab-takes-it ()
  (dg-lsp-tests-in "def f():\n    |\n"
    (dg-lsp-tests--type "return ")
    (dg-lsp-tests--ghost "width * height")
    (dg-lsp-tests--press "TAB")
    (should (equal (dg-lsp-tests--line) "    return width * height"))
    (should-not (dg-lsp-ghost-rest))))

(ert-deftest dg-lsp-tests-keys-take-words-and-lines-or-do-what-they-did ()
  (dg-lsp-tests-in "def f():\n    |\n"
    (dg-lsp-tests--type "return ")
    (dg-lsp-tests--ghost "width * height")
    (dg-lsp-tests--press "M-f")
    (should (equal (dg-lsp-ghost-rest) " * height"))
    (dg-lsp-tests--press "C-<right>")
    (should (equal (dg-lsp-ghost-rest) " height"))
    (dg-lsp-tests--press "C-e")
    (should (equal (dg-lsp-tests--line) "    return width * height"))
    (dg-lsp-tests--quiet)
    (goto-char (point-min))
    (dg-lsp-tests--press "M-f" "C-e")
    (should (= (point) (line-end-position)))))

(ert-deftest dg-lsp-tests-c-e-moves-where-text-follows-the-ghost ()
  (dg-lsp-tests-in "def f():\n    |)\n"
    (dg-lsp-ghost-offer (list (dg-lsp-ghost-item (point) (point) "(a")))
    (dg-lsp-tests--press "C-e")
    (should (equal (dg-lsp-tests--line) "    )"))
    (should (eolp))))

(ert-deftest dg-lsp-tests-c-g-hides-and-brings-nothing-back ()
  (dg-lsp-tests-in "def f():\n    |\n"
    (dg-lsp-tests--type "return ")
    (dg-lsp-tests--ghost "width * height")
    (dg-lsp-tests--press "C-g")
    (dg-lsp-tests--quiet)))

(ert-deftest dg-lsp-tests-undo-is-one-step-and-asks-nothing ()
  (dg-lsp-tests-in "def f():\n    |\n"
    (dg-lsp-tests--type "return ")
    (dg-lsp-tests--ghost "width * height")
    (dg-lsp-tests--press "TAB")
    (dg-lsp-tests--quiet)
    (dg-lsp-tests--press "C-x u")
    (should (equal (dg-lsp-tests--line) "    return "))
    (dg-lsp-tests--quiet)))

(ert-deftest dg-lsp-tests-positions-count-as-the-server-does ()
  (dg-lsp-tests-in "if True:\n\tx = \"😀漢字é👩‍👧\"; if area(|)\n"
    (dg-lsp-tests--type "w")
    (dg-lsp-tests--ghost "idth, height) > 10:")
    (dg-lsp-tests--press "TAB")
    (should (equal (dg-lsp-tests--line)
                   "\tx = \"😀漢字é👩‍👧\"; if area(width, height) > 10:"))))

(ert-deftest dg-lsp-tests-a-list-of-items-can-be-cycled ()
  (dg-lsp-tests-in "x = |\n"
    (dg-lsp-ghost-offer
     (dg-lsp--items (dg-lsp-current-server) (vector '(:insertText "one") '(:insertText "two"))))
    (dg-lsp-tests--press "M-n")
    (should (equal (dg-lsp-ghost-rest) "two"))
    (dg-lsp-tests--press "M-p" "M-p")
    (should (equal (dg-lsp-ghost-rest) "two"))))

(ert-deftest dg-lsp-tests-the-next-of-one-asks-for-others ()
  (dg-lsp-tests-in "def f():\n    |\n"
    (dg-lsp-tests--type "size = ")
    (dg-lsp-tests--ghost "width")
    (dg-lsp-tests--press "M-n")
    (dg-lsp-tests--ghost "height")
    (dg-lsp-tests--press "M-p" "M-p")
    (dg-lsp-tests--ghost "width * height")
    (dg-lsp-tests--press "TAB")
    (should (equal (dg-lsp-tests--line) "    size = width * height"))))

;;;; Asking

(ert-deftest dg-lsp-tests-nothing-is-asked-where-it-would-disturb ()
  (dg-lsp-tests-in "def f():\n    return|\n"
    (dolist (arrange (list (lambda () (setq executing-kbd-macro t))
                           (lambda () (setq completion-in-region-mode t))
                           (lambda () (setq dg-lsp-quiet-commands '("self-")))))
      (let ((executing-kbd-macro nil)
            (completion-in-region-mode nil)
            (dg-lsp-quiet-commands nil))
        (funcall arrange)
        (dg-lsp-tests--type " ")
        (dg-lsp-tests--quiet)
        (delete-char -1)))
    (setq buffer-read-only t)
    (let ((inhibit-read-only t))
      (dg-lsp-tests--type " "))
    (dg-lsp-tests--quiet)
    (setq buffer-read-only nil)))

(ert-deftest dg-lsp-tests-an-indirect-buffer-is-left-alone ()
  (dg-lsp-tests-in "def f():\n    return|\n"
    (let ((base (current-buffer))
          (indirect (make-indirect-buffer (current-buffer) "indirect" t)))
      (unwind-protect
          (progn
            (switch-to-buffer indirect)
            (goto-char (1- (point-max)))
            (dg-lsp-tests--type " ")
            (with-current-buffer base (dg-lsp-tests--quiet)))
        (switch-to-buffer base)
        (kill-buffer indirect))
      ;; What was edited there is known, and the file is still open.
      (goto-char (1- (point-max)))
      (when dg-lsp-tests-beside-eglot
        (dg-lsp-tests--press "M-RET")
        (dg-lsp-tests--ghost "width * height")))))

(ert-deftest dg-lsp-tests-an-answer-for-another-place-is-not-shown ()
  (dg-lsp-tests-in "def f():\n    |\n"
    (dg-lsp-tests--type "late = ")
    (dg-lsp-tests--until (lambda () dg-lsp--request))
    (dg-lsp-tests--press "C-a")
    (should-not dg-lsp--request)
    (dg-lsp-tests--quiet)))

(ert-deftest dg-lsp-tests-what-is-not-wanted-is-cancelled ()
  (dg-lsp-tests-in "def f():\n    |\n"
    (dg-lsp-tests--type "hang = ")
    (dg-lsp-tests--until (lambda () dg-lsp--request))
    (dg-lsp-tests--press "C-a")
    (let ((uri (plist-get (plist-get (dg-lsp-server-place (dg-lsp-current-server)) :textDocument) :uri))
          (running nil))
      (dg-lsp-tests--until
       (lambda ()
         (dg-lsp-server-command
          (dg-lsp-current-server) "dg.explain" (list uri)
          (lambda (answer) (setq running (plist-get answer :running))))
         (accept-process-output nil 0.05)
         (eql running 0))))
    (should-not (jsonrpc-last-error (dg-lsp-current-server)))))

(ert-deftest dg-lsp-tests-asking-by-hand-tells-why-there-is-nothing ()
  (dg-lsp-tests-in "def f():\n    return |\n"
    (dg-lsp-tests--press "M-RET")
    (dg-lsp-tests--ghost "width * height")
    (dg-lsp-tests--press "C-g" "C-a")
    (let (told)
      (cl-letf (((symbol-function 'dg-lsp-explain) (lambda () (setq told t))))
        (dg-lsp-tests--press "M-RET")
        (dg-lsp-tests--until (lambda () told))))))

(ert-deftest dg-lsp-tests-a-failure-in-a-callback-goes-to-the-log ()
  (dg-lsp-tests-in "def f():\n    |\n"
    (cl-letf ((debug-on-error nil)
              ((symbol-function 'dg-lsp-ghost-offer)
               (lambda (&rest _) (error "A mistake of ours"))))
      (dg-lsp-tests--type "return ")
      (dg-lsp-tests--until
       (lambda ()
         (with-current-buffer (dg-lsp-log-buffer)
           (string-search "Emacs: A mistake of ours" (buffer-string))))))
    (dg-lsp-tests--type "x")
    (dg-lsp-tests--quiet)))

(ert-deftest dg-lsp-tests-no-hook-is-left-behind ()
  (dg-lsp-tests-in "def f():\n    |\n"
    (dg-lsp-tests--type "return ")
    (dg-lsp-tests--ghost "width * height")
    (should (memq #'dg-lsp--look-after (default-value 'post-command-hook)))
    (dg-lsp-tests--press "C-g" "C-a")
    (should-not (memq #'dg-lsp--look-after (default-value 'post-command-hook)))
    (dg-lsp-mode -1)
    (should-not (memq #'dg-lsp--post-command post-command-hook))
    (dg-lsp-mode 1)))

;;;; Settings, state, commands

(ert-deftest dg-lsp-tests-only-this-server-hears-of-ghost-text ()
  (skip-unless (not dg-lsp-tests-beside-eglot))
  (dg-lsp-tests-in "|"
    (let* ((ours (dg-lsp-current-server))
           (other (make-instance
                   'eglot-lsp-server :name "other"
                   :process (make-process :name "other" :command '("cat"))))
           (told (eglot-client-capabilities ours)))
      (setf (eglot--project other) (eglot--project ours))
      (should (plist-get (plist-get told :textDocument) :inlineCompletion))
      (should (equal (plist-get told :experimental) '(:dg (:status t))))
      (should (plist-get (plist-get told :textDocument) :synchronization))
      (should-not (plist-get (plist-get (eglot-client-capabilities other)
                                        :textDocument)
                             :inlineCompletion))
      (delete-process "other"))))

(ert-deftest dg-lsp-tests-settings-become-json ()
  (should (equal (dg-lsp--json '(:exclude ("a" "b") :drafts t
                                 :engine (:model "m" :token nil)))
                 '(:exclude ["a" "b"] :drafts t
                   :engine (:model "m" :token nil))))
  (should (equal (dg-lsp--merge '(:a 1 :b (:c 2 :d 3)) '(:b (:c 4) :e 5))
                 '(:a 1 :b (:c 4 :d 3) :e 5))))

(ert-deftest dg-lsp-tests-a-project-has-settings-of-its-own ()
  (skip-unless (not dg-lsp-tests-beside-eglot))
  (dg-lsp-tests-in "def f():\n    |\n"
    (let ((dg-lsp-settings '(:drafts t :engine (:model "a"))))
      (cl-letf (((default-value 'eglot-workspace-configuration)
                 '(:dg (:engine (:model "b")))))
        (should (equal (eglot-handle-request
                        (dg-lsp-current-server) 'workspace/configuration
                        :items [(:section "dg") (:section "other")])
                       [(:drafts t :engine (:model "b")) nil]))))))

(ert-deftest dg-lsp-tests-unsafe-variables-of-a-project-are-passed-over-unasked ()
  (dg-lsp-tests-in "|"
    (let ((file (expand-file-name ".dir-locals.el" dg-lsp-tests--directory))
          (asked nil))
      (write-region "((nil . ((odd-variable . 42)
                             (eval . (error \"Evaluated\"))
                             (eglot-workspace-configuration
                              . (:dg (:enabled :json-false))))))"
                    nil file nil 'silent)
      (unwind-protect
          (cl-letf (((symbol-function 'hack-local-variables-confirm)
                     (lambda (&rest _) (setq asked t) nil)))
            (dg-lsp-configure :drafts nil)
            (dg-lsp-tests--state "off")
            (should-not asked)
            (let ((enable-local-variables nil))
              (dg-lsp-configure :drafts nil)
              (dg-lsp-tests--until
               (lambda () (not (equal (plist-get (dg-lsp-status) :state)
                                      "off"))))))
        (delete-file file)))))

(ert-deftest dg-lsp-tests-settings-can-change-and-change-back ()
  (dg-lsp-tests-in "def f():\n    return|\n"
    (dg-lsp-use-model "other")
    (dg-lsp-tests--until
     (lambda () (equal (plist-get (dg-lsp-status) :model) "other")))
    (dg-lsp-tests--type " ")
    (dg-lsp-tests--ghost "height * width")
    (dg-lsp-configure :engine nil)
    (dg-lsp-tests--until
     (lambda () (not (equal (plist-get (dg-lsp-status) :model) "other"))))
    (dg-lsp-toggle)
    (dg-lsp-tests--state "off")
    (should (equal (substring-no-properties (dg-lsp-mode-line)) "dg:off"))
    (dg-lsp-toggle)
    (dg-lsp-tests--until
     (lambda () (not (equal (plist-get (dg-lsp-status) :state) "off"))))))

(ert-deftest dg-lsp-tests-snoozing-is-the-server-s ()
  (dg-lsp-tests-in "def f():\n    return|\n"
    (dg-lsp-snooze 5)
    (dg-lsp-tests--state "snoozed")
    (dg-lsp-tests--type " ")
    (dg-lsp-tests--quiet)
    (dg-lsp-snooze 0)
    (dg-lsp-tests--until
     (lambda () (not (equal (plist-get (dg-lsp-status) :state) "snoozed"))))))

(ert-deftest dg-lsp-tests-drafts-show-until-the-answer ()
  (dg-lsp-tests-in "def f():\n    |\n"
    (dg-lsp-toggle-drafts)
    (dg-lsp-tests--quiet)
    (dg-lsp-tests--type "draft = ")
    (let ((seen 0))
      (dg-lsp-tests--until
       (lambda ()
         (when (and dg-lsp-ghost--shown (not dg-lsp-ghost-acceptable))
           (cl-incf seen))
         (equal (dg-lsp-ghost-rest) "[width, height]")))
      (should (> seen 0)))))

(ert-deftest dg-lsp-tests-a-draft-for-another-text-is-not-shown ()
  (dg-lsp-tests-in "def f():\n    |\n"
    (dg-lsp-tests--type "hang = ")
    (let* ((request (dg-lsp-tests--until (lambda () dg-lsp--request)))
           (place (dg-lsp--request-place request))
           (document (plist-get place :textDocument))
           (tell (lambda (version)
                   (dg-lsp-server-hear
                    (dg-lsp-current-server) 'dg/draft
                    :textDocument (append document `(:version ,version))
                    :position (plist-get place :position) :step 1
                    :milliseconds 1 :pieces [(:text "a" :settled t)]))))
      (funcall tell (1- (dg-lsp--request-version request)))
      (should-not dg-lsp-ghost--shown)
      (funcall tell (dg-lsp--request-version request))
      (should dg-lsp-ghost--shown)
      (dg-lsp-tests--press "C-a")
      (should-not dg-lsp-ghost--shown)
      (funcall tell (dg-lsp--request-version request))
      (should-not dg-lsp-ghost--shown))))

(ert-deftest dg-lsp-tests-the-mode-line-tells-the-state ()
  (pcase-dolist (`(,status ,label)
                 '(((:state "loading" :fraction 0.4) "dg:loading 40%")
                   ((:state "loading" :fraction nil) "dg:loading")
                   ((:state "error" :message "m") "dg:error")))
    (should (equal (dg-lsp-status--label status) label)))
  (should (equal (dg-lsp-status--help '(:message "Broken." :remedy "Mend it."
                                        :model "small"))
                 "Broken.\nMend it.\nModel: small\nmouse-1: menu")))

(ert-deftest dg-lsp-tests-commands-answer ()
  (dg-lsp-tests-in "def f():\n    |\n"
    (let (told chosen)
      (cl-letf (((symbol-function 'message)
                 (lambda (format &rest rest)
                   (push (apply #'format format rest) told)))
                ((symbol-function 'completing-read)
                 (lambda (_prompt choices &rest _) (caar choices)))
                ((symbol-function 'dg-lsp-use-model)
                 (lambda (model) (setq chosen model))))
        (dg-lsp-restart-engine)
        (dg-lsp-explain)
        (dg-lsp-select-model)
        (dg-lsp-tests--until (lambda () (and chosen (length> told 2))))
        (should (equal chosen ""))))))

(ert-deftest dg-lsp-tests-doctor-shows-what-it-finds ()
  (dg-lsp-tests-in "|"
    (save-window-excursion
      (let ((dg-lsp-command dg-lsp-tests-server)
            (dg-lsp-settings '(:engine (:model "/nowhere/at/all"))))
        (dg-lsp-doctor))
      (with-current-buffer "*dg-lsp doctor*"
        (dg-lsp-tests--until
         (lambda ()
           (and (string-search "tree-sitter" (buffer-string))
                (string-search "/nowhere/at/all" (buffer-string)))))
        (should-not (string-search "\e" (buffer-string)))))))

(ert-deftest dg-lsp-tests-the-log-is-kept-short ()
  (let ((dg-lsp-log-lines 3))
    (dotimes (number 10) (dg-lsp-log "line %d" number))
    (with-current-buffer (dg-lsp-log-buffer)
      (should (= (count-lines (point-min) (point-max)) 3))
      (should (string-search "line 9" (buffer-string))))))

(ert-deftest dg-lsp-tests-what-the-mode-has-of-its-own-stays ()
  (skip-unless (not dg-lsp-tests-beside-eglot))
  (dg-lsp-tests-in "|"
    (should-not (memq 'eglot-xref-backend xref-backend-functions))
    (should-not (equal (bound-and-true-p flymake-diagnostic-functions)
                       '(eglot-flymake-backend)))))

(provide 'dg-lsp-tests)
;;; dg-lsp-tests.el ends here
